--! no-writes
-- Reads a page of a journal.
-- ARGV: J, family of chunks where the page begins ('c' or 'e'), number of the chunk in its order, position in it,
-- entries at most, bytes after which the page ends
-- Reply: sequence, next family ('' at the end), next chunk, next position, then for each entry three: slot or 'n',
--   entry, resolution or ''. Of a child the entry comes without its input; of another it is: name length (2) name,
--   written at (6), kind and the rest. Or for a whole chunk of small children three: 'c' and its first index (4), its
--   segments, its results, both as lists of fields and values (see chunk.lua).
local CHUNK = 64
-- Up to so many bytes the inputs in a chunk are sent along, since leaving them out means to take its segments apart.
local SMALL_CHUNK = 16384

local function command()
  local J, family, number, position = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
  local limit, bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
  local journal = call('HMGET', T .. ':j:' .. J, 'q', 'k')
  local reply, entries = { tonumber(journal[1] or 0), '', 0, 0 }, 0

  local function add(slot, entry, result)
    reply[#reply + 1] = slot
    reply[#reply + 1] = entry
    reply[#reply + 1] = result or ''
    entries = entries + 1
    bytes = bytes - #entry - #reply[#reply]
  end

  local function add_list(list)
    reply[#reply + 1] = list
    for i = 1, #list do bytes = bytes - #list[i] end
  end

  -- Adds a chunk as it is stored, if its children are small and there is room for as many as it may have; whether it
  -- did.
  local function add_whole(chunk, first)
    local segments, results = T .. ':c:' .. chunk, T .. ':C:' .. chunk
    if position > 0 or limit - entries < CHUNK or size_of(segments) > SMALL_CHUNK or is_large(results) then
      return false
    end
    reply[#reply + 1] = 'c' .. spack('>I4', first)
    add_list(call('HGETALL', segments))
    add_list(call('HGETALL', results))
    entries = entries + CHUNK
    return true
  end

  -- Adds what is in a chunk from `position` on; the position where the page ends, nil if it holds the rest of the
  -- chunk.
  local function add_from_chunk(chunk)
    local first = (sunpack('>I4', chunk, 19)) * CHUNK
    if family == 'c' and add_whole(chunk, first) then return nil end
    local list = T .. ':' .. family .. ':' .. chunk
    local results = T .. ':' .. string.upper(family) .. ':' .. chunk
    local all = not (is_large(list) or is_large(results)) and Result.all(results)
    for _, at in ipairs(positions_of(family, list)) do
      if entries >= limit or bytes <= 0 then return at end
      if at >= position then
        local slot, entry = stored_at(family, list, first, at)
        local result = all and all[at] or not all and Result.read(results, at)
        if slot then
          add(slot, without_input(entry), result)
        else
          add('n', sub(entry, 2), result)
        end
      end
    end
    return nil
  end

  while true do
    local chunk
    if family == 'c' then
      chunk = call('LINDEX', T .. ':b:' .. J, number)
      chunk = chunk and J .. chunk
    elseif number * CHUNK < tonumber(journal[2] or 0) then
      chunk = J .. spack('>I4', number)
    end
    if chunk and (entries >= limit or bytes <= 0) then
      reply[2], reply[3], reply[4] = family, number, position
      break
    end
    if chunk then
      position = add_from_chunk(chunk)
      if not position then number, position = number + 1, 0 end
    elseif family == 'c' then
      family, number, position = 'e', 0, 0
    else
      break
    end
  end
  return reply
end
