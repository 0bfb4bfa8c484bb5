--! allow-oom
-- Opens or renews a session.
-- ARGV: session, lease in ms, label, names of workflows
-- Reply: OK, or SESSIONLOST if the session was open before and is not any more.
local function command()
  local session, lease = ARGV[1], tonumber(ARGV[2])
  look_again()
  if call('ZSCORE', T .. ':f', session) then return session_lost() end
  if call('ZSCORE', T .. ':s', session) and not alive(session) then return session_lost() end
  call('HSET', T .. ':h:' .. session, 'lease', lease, 'label', ARGV[3])
  -- Longer than a listpack takes, so that the leases are a hash table from the first on.
  call('HSET', T .. ':l:' .. session, '', string.rep('.', 65))
  local names = {}
  for i = 4, #ARGV do names[#names + 1] = ARGV[i] end
  in_pieces('SADD', T .. ':w', names)
  call('HSET', T, 'beat', now)
  call('ZADD', T .. ':s', now + lease, session)
  return redis.status_reply('OK')
end
