--! no-writes
-- Reads the entries of tasks.
-- ARGV: bytes after which no more are read, then elements
-- Reply: now, then for each task, as far as it came, at least for the first: its entry (without input unless it is the
-- first task of its run), '' if there is none that can be read.
local function command()
  local room, reply = tonumber(ARGV[1]), { now }
  for i = 2, #ARGV do
    local tid, tail = split_element(ARGV[i])
    local fine, entry = pcall(entry_of, rid_of(tid))
    if not fine or not entry then entry = '' end
    room = room - #entry
    if entry ~= '' and band(byte(tail, 1), FIRST) == 0 then entry = without_input(entry) end
    reply[i] = entry
    if room <= 0 then break end
  end
  return reply
end
