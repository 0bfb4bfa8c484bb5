--! allow-oom
-- Gives the connections that sessions live by, to somebody who can see which of them are gone, and says when a sweep has
-- something to do.
-- ARGV: session that asks; name and address of the server that it sees, '' if it sees no connections
-- Reply: ms until this session should ask again; ms until it should sweep, -1 if others see to that; ms until those are dead who
-- are suspected by this call, -1 if none is; then for some sessions: session, number of its connection, address of its server.
--
-- One session looks often and the others less, by their place in the order in which leases end: so the server is
-- asked little more often by many processes than by few, and if the first of them dies, the next sees it. The first sweeps when
-- something is due, and the others if that was not done.
local LOOK_MS, SOME = 300, 128
-- For how long nobody has swept if nobody does.
local IDLE_MS = 300
-- How long a server is known before sessions are suspected that were last heard of by another one: a start of the server at the
-- same address has cut all its connections; elsewhere, a process may still be waiting for the server that was there before.
local RESTARTED_MS, REPLACED_MS = 1200, 15000

local function nobody_sweeps(swept)
  swept = tonumber(swept or 0)
  return swept > now or swept < now - IDLE_MS
end

-- For how long this server is known.
local function age_of(server, known)
  local name, since = string.match(known or '', '^(%S+) (%d+)$')
  since = tonumber(since)
  if name == server and since <= now then return now - since end
  call('HSET', T, 'server', server .. ' ' .. now)
  return 0
end

local function command()
  local session, server, address = ARGV[1], ARGV[2], ARGV[3]
  if not alive(session) then return session_lost() end
  local heard = Clock.read()
  Clock.look(heard)
  local rank, due = call('ZRANK', T .. ':s', session), due_in()
  local seen = call('HMGET', T, 'looked', 'look', 'swept', 'server')
  if Clock.came_back(heard[4]) then due = 0 end
  if rank > 0 and not (due == 0 and nobody_sweeps(seen[3])) then due = -1 end
  local reply = { LOOK_MS * (1 + math.min(rank, 2)), due, -1 }
  if server == '' then return reply end
  if now < tonumber(seen[1] or 0) + LOOK_MS / 2 and now >= tonumber(seen[1] or 0) then return reply end
  local from, age = tonumber(seen[2] or 0), age_of(server, seen[4])
  local some = call('ZRANGE', T .. ':s', from, from + SOME - 1)
  call('HSET', T, 'looked', now, 'look', #some == SOME and from + SOME or 0)
  for _, other in ipairs(some) do
    local client = other ~= session and call('HGET', T .. ':h:' .. other, 'client')
    local name, number, place = string.match(client or '', '^(%S+) (%d+) (%S*)$')
    if name == server then
      reply[#reply + 1] = other
      reply[#reply + 1] = number
      reply[#reply + 1] = place
    elseif name and age >= (place == address and RESTARTED_MS or REPLACED_MS) then
      reply[3] = math.max(reply[3], Suspicion.raise(other))
    end
  end
  return reply
end
