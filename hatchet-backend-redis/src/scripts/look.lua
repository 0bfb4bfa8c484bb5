--! allow-oom
-- Gives the connections that sessions live by, to somebody who can see which of them are gone.
-- ARGV: session that asks, name of the server that it sees
-- Reply: ms until this session should ask again, then for some sessions: session, number of its connection.
--
-- One session looks often and the others seldom, by their place in the order in which leases end: so the server is
-- asked no more often by many processes than by few, and if the first of them dies, the next sees it.
local function command()
  local LOOK_MS, SOME = 300, 128
  local session, server = ARGV[1], ARGV[2]
  if not alive(session) then return session_lost() end
  local rank = call('ZRANK', T .. ':s', session)
  local reply = { LOOK_MS * (1 + math.min(rank, 20)) }
  local seen = call('HMGET', T, 'looked', 'look')
  if now < tonumber(seen[1] or 0) + LOOK_MS / 2 and now >= tonumber(seen[1] or 0) then return reply end
  local from = tonumber(seen[2] or 0)
  local some = call('ZRANGE', T .. ':s', from, from + SOME - 1)
  call('HSET', T, 'looked', now, 'look', #some == SOME and from + SOME or 0)
  for _, other in ipairs(some) do
    local client = other ~= session and call('HGET', T .. ':h:' .. other, 'client')
    local name, number = string.match(client or '', '^(%S+) (%d+)$')
    if name == server then
      reply[#reply + 1] = other
      reply[#reply + 1] = number
    end
  end
  return reply
end
