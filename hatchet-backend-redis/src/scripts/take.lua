--! allow-oom
-- Reads the inbox of a session; what was read before is dropped once its reader names it.
-- ARGV: session, number of the first event that was not read, events at most, bytes after which no more are read
-- Reply: number of the first event in the reply, the events.
local function command()
  local session, wanted, limit, room = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  if not alive(session) then return session_lost() end
  Suspicion.lift(session)
  local inbox, state = T .. ':i:' .. session, T .. ':h:' .. session
  local first = tonumber(call('HGET', state, 'base') or 0)
  if wanted > first then
    call('LTRIM', inbox, wanted - first, -1)
    call('HSET', state, 'base', wanted)
    first = wanted
  end
  call('UNLINK', T .. ':m:' .. session)
  local reply, count, largest = { first }, 0, 0
  while count < limit and room > 0 do
    -- More at a time as long as they are small.
    local some = math.min(limit - count, count + 1, math.ceil(room / math.max(largest, 1)))
    local events = call('LRANGE', inbox, count, count + some - 1)
    for _, event in ipairs(events) do
      count, room, largest = count + 1, room - #event, math.max(largest, #event)
      reply[count + 1] = event
    end
    if #events < some then break end
  end
  return reply
end
