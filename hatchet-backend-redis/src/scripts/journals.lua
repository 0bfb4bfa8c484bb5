--! no-writes
-- Reads which steps of a run have journals.
-- ARGV: rid
-- Reply: the steps, 2 bytes each; none if there is no such run.
local function command()
  if Run.is_removed(ARGV[1]) then return '' end
  return call('HGET', T .. ':r:' .. ARGV[1], 'j') or ''
end
