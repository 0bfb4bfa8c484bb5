--! no-writes
-- Reads what later steps of a run need.
-- ARGV: rid
-- Reply: nothing if there is no such run, else entry, state, outputs as pairs of step and payload.
local function command()
  local rid = ARGV[1]
  local entry = not Run.is_removed(rid) and entry_of(rid)
  if not entry then return {} end
  return { entry, call('HGET', T .. ':r:' .. rid, 'S') or '', call('HGETALL', T .. ':u:' .. rid) }
end
