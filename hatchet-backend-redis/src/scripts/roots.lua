--! no-writes
-- Reads ids of root runs, newest first.
-- ARGV: highest score, lowest score (as ZRANGE takes them), how many are looked at, how many are given, workflow or '',
-- kinds of endings that are wanted, with 'u' for those that have not ended, or ''; 1 if the lists by kind are complete
-- Reply: how many were looked at, the score of the last one, then for each that fits: uid, score.
local function command()
  local limit, workflow, kinds = tonumber(ARGV[4]), ARGV[5], ARGV[6]
  local reply, looked = { 0, '' }, 0

  local function read(key)
    return call('ZRANGE', key, ARGV[1], ARGV[2], 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
  end

  -- The next ones of several lists as if they were one.
  local function merged()
    local found = {}
    for i = 1, #kinds do
      local some = read(T .. ':a:' .. sub(kinds, i, i))
      for j = 1, #some, 2 do found[#found + 1] = { some[j], some[j + 1], tonumber(some[j + 1]) } end
    end
    table.sort(found, function(a, b) return a[3] > b[3] end)
    local roots = {}
    for i = 1, math.min(#found, tonumber(ARGV[3])) do roots[2 * i - 1], roots[2 * i] = found[i][1], found[i][2] end
    return roots
  end

  local listed = ARGV[7] == '1' and kinds ~= '' and not string.find(kinds, 's', 1, true)
  local roots
  if not listed then
    roots = read(T .. ':a')
  elseif #kinds == 1 then
    roots = read(T .. ':a:' .. kinds)
  else
    roots = merged()
  end

  local function fits(root)
    if workflow == '' and (kinds == '' or listed) then return true end
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
