--! allow-oom
-- Says that connections which sessions live by are gone. Such a session is dead soon, unless it is heard of before: it is
-- asked to speak up, for the case that only the connection was lost.
-- ARGV: for each session: session, the server's name and the number of the connection
-- Reply: ms until those that stay silent are dead, -1 if none is suspected.
local function command()
  local GRACE_MS = 400
  local wait = -1
  for i = 1, #ARGV, 2 do
    local session = ARGV[i]
    local deadline = tonumber(call('ZSCORE', T .. ':s', session) or 0)
    if deadline > now and call('HGET', T .. ':h:' .. session, 'client') == ARGV[i + 1] then
      call('HDEL', T .. ':h:' .. session, 'client')
      call('ZADD', T .. ':s', math.min(deadline, now + GRACE_MS), session)
      notify(session, 'P')
      wait = GRACE_MS
    end
  end
  return wait
end
