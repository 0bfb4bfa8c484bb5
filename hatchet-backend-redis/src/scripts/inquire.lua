--! allow-oom
-- Asks sessions which of the tasks that they hold they do not run.
-- ARGV: sessions
-- Reply: for each, the number of the question; 0 if it is not open, or is of a version of this library that does not answer.
local function ask(session)
  local state = T .. ':h:' .. session
  if not alive(session) or not call('HGET', state, 'answers') then return 0 end
  local number = call('HINCRBY', state, 'inquiry', 1)
  notify(session, 'Q' .. spack('>I6', number))
  return number
end

local function command()
  local reply = {}
  for i, session in ipairs(ARGV) do
    -- Of one whose record is something else, other parts of a check tell.
    local fine, number = pcall(ask, session)
    reply[i] = fine and number or 0
  end
  return reply
end
