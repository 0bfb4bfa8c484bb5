--! no-writes
-- Reads the sequence numbers of journals.
-- ARGV: for each: J
-- Reply: for each its number, 0 if there is no such journal.
local function command()
  local reply = {}
  for i = 1, #ARGV do reply[i] = tonumber(call('HGET', T .. ':j:' .. ARGV[i], 'q') or 0) end
  return reply
end
