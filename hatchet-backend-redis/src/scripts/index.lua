--! allow-oom
-- Lists the root runs of a store of the previous format by how they ended, the newest first, a piece at a time.
-- ARGV: the highest score, as ZRANGE takes it, or '' to begin; how many
-- Reply: 1 if a session of a program is open that does not keep these lists, so that nothing was done, else 0; the score of the last
-- run, '' if there are no more.
local function is_of_before()
  for _, session in ipairs(call('ZRANGE', T .. ':s', now, '+inf', 'BYSCORE')) do
    if not call('HGET', T .. ':h:' .. session, 'lists') then return true end
  end
  return false
end

local function command()
  local highest = ARGV[1]
  if is_of_before() then return { 1, '' } end
  if highest == '' then
    for _, kind in ipairs(Roots.KINDS) do call('UNLINK', T .. ':a:' .. kind) end
    highest = '+inf'
  end
  local last = ''
  local roots = call('ZRANGE', T .. ':a', highest, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
  for i = 1, #roots, 2 do
    last = roots[i + 1]
    local kind = call('HGET', T .. ':r:' .. roots[i], 'k') or 'u'
    if kind ~= 's' then call('ZADD', T .. ':a:' .. kind, last, roots[i]) end
  end
  return { 0, last }
end
