--! no-writes
-- Reads which children one journal has, some chunks at a time, the latest chunk first.
-- ARGV: J, family of chunks ('c' or 'e'), number of the chunk in its order or -1 for the last, chunks at most, bytes of
-- entries after which no more are read
-- Reply: number of the chunk that comes next or -1, then for each chunk: its number, then for each child: slot, entry
-- without input, kind of its ending, 'u' if it has not ended, '?' if that was not read.
local function command()
  local J, family, number, chunks = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
  local room = tonumber(ARGV[5])

  local function read_chunk(chunk)
    local list = T .. ':' .. family .. ':' .. J .. chunk
    local results = T .. ':' .. string.upper(family) .. ':' .. J .. chunk
    local all = not is_large(results) and Result.all(results)
    local first, read = (sunpack('>I4', chunk)) * 64, { number }
    for _, at in ipairs(positions_of(family, list)) do
      local slot, entry = stored_at(family, list, first, at)
      room = room - #entry
      if slot then
        local n, kind = #read, '?'
        if all then kind = all[at] and sub(all[at], 17, 17) or 'u' end
        read[n + 1], read[n + 2], read[n + 3] = slot, without_input(entry), kind
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
end
