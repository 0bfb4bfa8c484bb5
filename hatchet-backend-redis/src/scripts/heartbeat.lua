--! allow-oom
-- Renews a session, or only says which connection it lives by now: that keeps nothing alive whose heartbeats have ended.
-- ARGV: session; the server's name, the number of the connection that it lives by, and the server's address, '' if that is not known;
-- 1 if this renews the session, else 0
-- Reply: ms until a sweep has something to do, -1 if nothing is known.
local function command()
  local session, renews = ARGV[1], ARGV[3] == '1'
  if not alive(session) then return session_lost() end
  local state = T .. ':h:' .. session
  if renews then
    call('ZADD', T .. ':s', now + Damage.lease_of(session), session)
    call('HDEL', state, 'unsuspected')
  else
    Suspicion.lift(session)
  end
  -- What was said before stays: a heartbeat may know less than who reads the inbox, and come behind it.
  if ARGV[2] ~= '' then call('HSET', state, 'client', ARGV[2]) end
  Clock.look(Clock.read())
  call('HSET', T, 'beat', now)
  return due_in()
end
