--! allow-oom
-- Renews a session.
-- ARGV: session
-- Reply: ms until a sweep has something to do, -1 if nothing is known.
local session = ARGV[1]
if not alive(session) then return session_lost() end
call('ZADD', T .. ':s', now + tonumber(call('HGET', T .. ':h:' .. session, 'lease')), session)
call('HSET', T, 'beat', now)
return due_in()
