--! allow-oom
-- Says that connections which sessions live by are gone. Such a session is dead soon, unless it is heard of before: it is
-- asked to speak up, for the case that only the connection was lost.
-- ARGV: for each session: session, the server's name the number of the connection, the server's address
-- Reply: ms until those that stay silent are dead, -1 if none is suspected.
local function command()
  local wait = -1
  for i = 1, #ARGV, 2 do
    if call('HGET', T .. ':h:' .. ARGV[i], 'client') == ARGV[i + 1] then wait = math.max(wait, Suspicion.raise(ARGV[i])) end
  end
  return wait
end
