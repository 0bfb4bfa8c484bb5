--! allow-oom
-- Ends runs as cancelled, and some of their descendants.
-- ARGV: retention in ms, reason, rids
-- Reply: for each run: 'N' no such run, 'C' cancelled, or '=' and how it had ended.
retention = tonumber(ARGV[1])
local reply = {}
for i = 3, #ARGV do
  local result = result_of(ARGV[i])
  if result == nil or is_removed(ARGV[i]) then
    reply[i - 2] = 'N'
  elseif result then
    reply[i - 2] = '=' .. sub(result, 17)
  else
    end_run(ARGV[i], 'c' .. ARGV[2])
    flush_journals()
    reply[i - 2] = 'C'
  end
end
if call('EXISTS', T .. ':k') == 1 then teardown(64) end
flush_all()
return reply
