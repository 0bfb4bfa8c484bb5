--! allow-oom
-- Opens or renews a session.
-- ARGV: session, lease in ms, label, number of workflows, their names, names of queues
-- Reply: OK, or SESSIONLOST if the session was open before and is not any more.

-- Has a session that waits for work come again, since it can run other workflows from now on.
local function call_again(session)
  for _, queue in ipairs(call('SMEMBERS', T .. ':q')) do
    if call('ZREM', T .. ':y:' .. queue, session) == 1 then notify(session, 'W' .. queue) end
  end
end

local function command()
  local session, lease = ARGV[1], tonumber(ARGV[2])
  look_again()
  if call('ZSCORE', T .. ':f', session) then return session_lost() end
  if call('ZSCORE', T .. ':s', session) and not alive(session) then return session_lost() end
  local names, queues = {}, {}
  for i = 5, #ARGV do
    local list = i < 5 + tonumber(ARGV[4]) and names or queues
    list[#list + 1] = ARGV[i]
  end
  local state, before = T .. ':h:' .. session, Announced.of(session)
  call('HSET', state, 'lease', lease, 'label', ARGV[3], 'w', Announced.pack(names), 'u', Announced.pack(queues), 'lists', 1, 'pauses', 1,
    'answers', 1)
  call('HSETNX', state, 'opened', now)
  Announced.forget(session)
  if not before.any and Announced.of(session) ~= before then call_again(session) end
  -- Longer than a listpack takes, so that the leases are a hash table from the first on.
  call('HSET', T .. ':l:' .. session, '', string.rep('.', 65))
  in_pieces('SADD', T .. ':w', names)
  Clock.look(Clock.read())
  call('HSET', T, 'beat', now)
  call('ZADD', T .. ':s', now + lease, session)
  return redis.status_reply('OK')
end
