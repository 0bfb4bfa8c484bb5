--! allow-oom
-- Notes the answer of a session to a question of a check.
-- ARGV: session, number of the question, then each lease that it holds and does not run: length of its tid (1) tid token (12)
-- Reply: OK
local function command()
  local session = ARGV[1]
  if not alive(session) then return session_lost() end
  call('HSET', T .. ':h:' .. session, 'disowned', spack('>I6', ARGV[2]) .. table.concat(ARGV, '', 3))
  return redis.status_reply('OK')
end
