--! allow-oom
-- Closes a session and gives back some of its leases.
-- ARGV: session, how many leases at most
-- Reply: 1 if it has leases left, 0 if not.
local function command()
  local session, budget = ARGV[1], tonumber(ARGV[2])
  if alive(session) then fence(session, 'c') end
  -- One whose lease time is over is the sweep's, since its tasks count as recovered.
  if call('HGET', T .. ':v', session) ~= 'c' then return 0 end
  drain(session, 'c', budget)
  flush_all()
  -- What cannot be given back now is the sweep's.
  return Damage.blocked and 0 or call('HEXISTS', T .. ':v', session)
end
