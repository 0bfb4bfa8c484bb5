--! no-writes
-- Reads a page of a journal.
-- ARGV: J, family of chunks where the page begins ('c' or 'e'), number of the chunk in its order, position in it,
-- entries at most,
--   bytes after which the page ends
-- Reply: sequence, next family ('' at the end), next chunk, next position, then for each entry: slot or 'n', entry,
-- resolution or ''.
--   Of a child the entry comes without its input; of another it is: name length (2) name, written at (6), kind and the
--   rest.
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

local function add_from_chunk(chunk, first)
  local list = T .. ':' .. family .. ':' .. chunk
  local results = T .. ':' .. string.upper(family) .. ':' .. chunk
  local some = math.min(limit - entries, (is_large(list) or is_large(results)) and 1 or 64)
  local upto = math.min(call('LLEN', list), position + some) - 1
  if upto < position then return 0 end
  local at = {}
  for i = position, upto do at[#at + 1] = i end
  local stored = call('LRANGE', list, position, upto)
  results = call('HMGET', results, unpack(at))
  for i, entry in ipairs(stored) do
    if family == 'c' then
      if entry ~= '' then add('i' .. spack('>I4', first + position + i - 1), without_input(entry), results[i]) end
    elseif byte(entry, 1) == 107 then
      add(sub(entry, 1, 17), without_input(sub(entry, 18)), results[i])
    else
      add('n', sub(entry, 2), results[i])
    end
  end
  return #stored
end

while true do
  local chunk
  if family == 'c' then
    chunk = call('LINDEX', T .. ':b:' .. J, number)
    chunk = chunk and J .. chunk
  elseif number * 64 < tonumber(journal[2] or 0) then
    chunk = J .. spack('>I4', number)
  end
  if chunk and (entries >= limit or bytes <= 0) then
    reply[2], reply[3], reply[4] = family, number, position
    break
  end
  if chunk then
    position = position + add_from_chunk(chunk, (sunpack('>I4', chunk, 19)) * 64)
    if position >= call('LLEN', T .. ':' .. family .. ':' .. chunk) then number, position = number + 1, 0 end
  elseif family == 'c' then
    family, number, position = 'e', 0, 0
  else
    break
  end
end
return reply
