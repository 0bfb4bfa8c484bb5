--! allow-oom
-- Makes trees of runs unknown of which all have ended, before their time. What is left of them is removed by sweeps.
-- ARGV: rids
-- Reply: for each run: 'R' removed, 'U' it or another of its tree has not ended, 'C' it is a child, 'N' no such run.
local function remove(rid)
  if result_of(rid) == nil or Run.is_removed(rid) then return 'N' end
  if #rid > 16 then return 'C' end
  if not call('ZSCORE', T .. ':x', rid) then return 'U' end
  Roots.forget_tree(rid)
  call('ZREM', T .. ':x', rid)
  return 'R'
end

local function command()
  local reply = {}
  for i, rid in ipairs(ARGV) do reply[i] = remove(rid) end
  purge(500)
  return reply
end
