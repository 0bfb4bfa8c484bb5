--! no-writes
-- Reads which children one journal has, some chunks at a time, the latest chunk first.
-- ARGV: J, family of chunks ('c' or 'e'), number of the chunk in its order or -1 for the last, chunks at most, bytes of
-- entries after which no more are read
-- Reply: number of the chunk that comes next or -1, then for each chunk: its number, then for each child: slot, entry
-- without input, kind of its ending, 'u' if it has not ended, '?' if that was not read.
local J, family, number, chunks = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local room = tonumber(ARGV[5])

-- The entries of a chunk, of which the large ones are read one by one.
local function read_entries(list)
  if not is_large(list) then return call('LRANGE', list, 0, -1) end
  local entries = {}
  for at = 0, call('LLEN', list) - 1 do entries[at + 1] = call('LINDEX', list, at) end
  return entries
end

local function read_kinds(results, count)
  local kinds = {}
  if is_large(results) then return kinds end
  local stored = call('HMGET', results, unpack(TEXT, 0, count - 1))
  for i = 1, count do kinds[i] = stored[i] and sub(stored[i], 17, 17) or 'u' end
  return kinds
end

local function read_chunk(chunk)
  local entries = read_entries(T .. ':' .. family .. ':' .. J .. chunk)
  local kinds = #entries > 0 and read_kinds(T .. ':' .. string.upper(family) .. ':' .. J .. chunk, #entries) or {}
  local first, read = (sunpack('>I4', chunk)) * 64, { number }
  for i, entry in ipairs(entries) do
    local slot
    room = room - #entry
    if family == 'c' then
      slot = 'i' .. spack('>I4', first + i - 1)
    elseif byte(entry, 1) == 107 then
      slot, entry = sub(entry, 1, 17), sub(entry, 18)
    end
    if slot and entry ~= '' then
      local n = #read
      read[n + 1], read[n + 2], read[n + 3] = slot, without_input(entry), kinds[i] or '?'
    end
  end
  return read
end

if number < 0 then
  if family == 'c' then
    number = call('LLEN', T .. ':b:' .. J) - 1
  else
    number = math.ceil(tonumber(call('HGET', T .. ':j:' .. J, 'k') or 0) / 64) - 1
  end
end
local reply = { -1 }
while number >= 0 and chunks > 0 and room > 0 do
  reply[#reply + 1] = read_chunk(family == 'c' and call('LINDEX', T .. ':b:' .. J, number) or spack('>I4', number))
  number, chunks = number - 1, chunks - 1
end
reply[1] = number
return reply
