--! allow-oom
-- Reads the inbox of a session; what was read before is dropped once its reader names it.
-- ARGV: session, number of the first event that was not read, events at most
-- Reply: number of the first event in the reply, the events.
local session, wanted, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not alive(session) then return session_lost() end
local inbox, state = T .. ':i:' .. session, T .. ':h:' .. session
local first = tonumber(call('HGET', state, 'base') or 0)
if wanted > first then
  call('LTRIM', inbox, wanted - first, -1)
  call('HSET', state, 'base', wanted)
  first = wanted
end
call('UNLINK', T .. ':m:' .. session)
return { first, unpack(call('LRANGE', inbox, 0, limit - 1)) }
