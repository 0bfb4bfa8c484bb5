--! no-writes
-- Reads ids of root runs, newest first.
-- ARGV: highest score, lowest score (as ZRANGE takes them), how many are looked at, how many are given, workflow or '',
-- kinds of endings that are wanted, with 'u' for those that have not ended, or ''
-- Reply: how many were looked at, the score of the last one, then for each that fits: uid, score.
local function command()
  local limit, workflow, kinds = tonumber(ARGV[4]), ARGV[5], ARGV[6]
  local roots = call('ZRANGE', T .. ':a', ARGV[1], ARGV[2], 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
  local reply, looked = { 0, '' }, 0

  local function fits(root)
    if workflow == '' and kinds == '' then return true end
    local record = call('HMGET', T .. ':r:' .. root, 'w', 'k')
    return (workflow == '' or record[1] == workflow) and (kinds == '' or string.find(kinds, record[2] or 'u', 1, true))
  end

  for i = 1, #roots, 2 do
    looked = looked + 1
    reply[2] = roots[i + 1]
    if fits(roots[i]) then
      reply[#reply + 1] = roots[i]
      reply[#reply + 1] = roots[i + 1]
      limit = limit - 1
      if limit == 0 then break end
    end
  end
  reply[1] = looked
  return reply
end
