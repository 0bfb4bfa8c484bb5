--! allow-oom
-- Pauses a queue or a workflow, or has it go on.
-- ARGV: its field (see lib/announced.lua); 1 to pause it, 0 to have it go on; 1 if this repeats a call whose reply was lost
-- Reply: since when it is paused or was until now, -1 if it was not, which a repeated call does not know; if it is to be paused, the labels of open sessions of programs that
-- do not know of pauses.

-- Tells sessions that wait of what they are given from now on.
local function wake(field)
  if byte(field, 1) == 113 then return Wake.again(sub(field, 2), math.huge) end
  for _, queue in ipairs(call('SMEMBERS', T .. ':q')) do Wake.again(queue, math.huge) end
end

local function pause(field)
  call('HSETNX', Pauses.key(), field, now)
  local reply = { tonumber(call('HGET', Pauses.key(), field)) or now }
  for _, session in ipairs(call('ZRANGE', T .. ':s', now, '+inf', 'BYSCORE')) do
    local stored = call('HMGET', T .. ':h:' .. session, 'pauses', 'w', 'label')
    if not stored[1] and stored[2] ~= '' then reply[#reply + 1] = stored[3] or '' end
  end
  return reply
end

local function go_on(field)
  local since = call('HGET', Pauses.key(), field)
  if not since then return { ARGV[3] == '1' and now or -1 } end
  call('HDEL', Pauses.key(), field)
  local refusal = Pauses.read()
  if refusal then error(refusal) end
  wake(field)
  return { tonumber(since) or now }
end

local function command()
  return ARGV[2] == '1' and pause(ARGV[1]) or go_on(ARGV[1])
end
