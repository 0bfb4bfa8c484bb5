--! allow-oom
-- Renews a session.
-- ARGV: session, the server's name, the number of the connection that it lives by, and the server's address; '' if that is not known
-- Reply: ms until a sweep has something to do, -1 if nothing is known.
local function command()
  local session = ARGV[1]
  if not alive(session) then return session_lost() end
  local state = T .. ':h:' .. session
  if ARGV[2] ~= '' then call('HSET', state, 'client', ARGV[2]) else call('HDEL', state, 'client') end
  call('ZADD', T .. ':s', now + Damage.lease_of(session), session)
  call('HSET', T, 'beat', now)
  return due_in()
end
