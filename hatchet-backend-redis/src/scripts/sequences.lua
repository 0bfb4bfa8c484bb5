--! no-writes
-- Reads the sequence numbers of journals.
-- ARGV: for each: J
-- Reply: for each its number, 0 if there is no such journal, or something else under its key.
local function command()
  local reply = {}
  for i = 1, #ARGV do
    local fine, number = pcall(call, 'HGET', T .. ':j:' .. ARGV[i], 'q')
    reply[i] = fine and tonumber(number) or 0
  end
  return reply
end
