--! allow-oom
-- Ends runs as cancelled, and some of their descendants.
-- ARGV: retention in ms, reason, bytes of endings after which no more are looked at, rids
-- Reply: for each run, as far as it came, at least for the first: 'N' no such run, 'C' cancelled, or '=' and how it had
-- ended.
local function command()
  retention = tonumber(ARGV[1])
  local reply, room = {}, tonumber(ARGV[3])
  for i = 4, #ARGV do
    local result = result_of(ARGV[i])
    if result == nil or Run.is_removed(ARGV[i]) then
      reply[i - 3] = 'N'
    elseif result then
      reply[i - 3] = '=' .. sub(result, 17)
      room = room - #result
      if room <= 0 then break end
    else
      Run.end_run(ARGV[i], 'c' .. ARGV[2])
      flush_journals()
      reply[i - 3] = 'C'
    end
  end
  if call('EXISTS', T .. ':k') == 1 then teardown(64) end
  flush_all()
  return reply
end
