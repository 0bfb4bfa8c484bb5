-- Chunks: of children with an index 64 stand in one, in segments as they were created, and their results in groups as
-- they came. A script moves a segment or a group as one string, since a string for each child costs more than all else.
--
--   T:c:J chunk   hash: first position (1) number (1) -> segment: generation (4) created (6), then for each child:
--                 length (4) and the rest of its entry (see journal.lua). A segment of one stands before one of several.
--   T:C:J chunk   hash: positions (1 each) -> of one: its result; of several: sequence of the first (4) started (6)
--                 ended (6), then for each: length (4) and its kind and the rest.
--
-- Results of the ordered chunks, T:E, are kept in the same way, each for itself.

-- Where `number` packed strings end that begin at `at`, each behind its length.
local function skip_packed(packed, at, number)
  for _ = 1, number do
    local a, b, c, d = byte(packed, at, at + 3)
    at = at + 4 + ((a * 256 + b) * 256 + c) * 256 + d
  end
  return at
end

-- One of some packed strings that begin at `at`; the first is number 0.
local function packed_string(packed, at, number)
  return (sunpack('>I4c0', packed, skip_packed(packed, at, number)))
end

local Segment = { HEAD = 10 }

-- The field of the segment that a position is in, and its number there; nil if there is none.
function Segment.find(key, position)
  local single = BYTE[position] .. BYTE[1]
  if call('HEXISTS', key, single) == 1 then return single, 0 end
  for _, field in ipairs(call('HKEYS', key)) do
    local first, number = byte(field, 1, 2)
    if first <= position and position < first + number then return field, position - first end
  end
end

-- The segment that was read last, since neighbours are mostly read one after the other.
local last_segment
local function read_segment(key, field)
  if not last_segment or last_segment.key ~= key or last_segment.field ~= field then
    last_segment = { key = key, field = field, value = call('HGET', key, field) }
  end
  return last_segment.value
end

-- The entry in a position; nil if there is none.
function Segment.entry(key, position)
  local field, number = Segment.find(key, position)
  if not field then return nil end
  local segment = read_segment(key, field)
  return sub(segment, 1, Segment.HEAD) .. packed_string(segment, Segment.HEAD + 1, number)
end

-- Some neighbours of one segment, which is not stored under their own number: a segment of these alone.
function Segment.cut(key, first, number)
  local field, before = Segment.find(key, first)
  if not field then return nil end
  local segment = call('HGET', key, field)
  local from = skip_packed(segment, Segment.HEAD + 1, before)
  return sub(segment, 1, Segment.HEAD) .. sub(segment, from, skip_packed(segment, from, number) - 1)
end

-- The segment of some neighbours that were created together; nil if they are not there.
function Segment.read(key, first, number)
  return call('HGET', key, BYTE[first] .. BYTE[number]) or Segment.cut(key, first, number)
end

function Segment.write(key, first, number, segment)
  last_segment = nil
  call('HSET', key, BYTE[first] .. BYTE[number], segment)
end

-- Writes the entry of one child, over that of an earlier generation if there is one.
function Segment.write_one(key, position, entry)
  local head = Segment.HEAD
  Segment.write(key, position, 1, sub(entry, 1, head) .. spack('>I4', #entry - head) .. sub(entry, head + 1))
end

-- The positions that are taken, in their order.
function Segment.positions(key)
  local taken, order = {}, {}
  for _, field in ipairs(call('HKEYS', key)) do
    local first, number = byte(field, 1, 2)
    for position = first, first + number - 1 do taken[position] = true end
  end
  for position = 0, 63 do
    if taken[position] then order[#order + 1] = position end
  end
  return order
end

local Result = {}

-- The result of one of a group.
function Result.of_group(group, number)
  return spack('>I4', sunpack('>I4', group) + number) .. sub(group, 5, 16) .. packed_string(group, 17, number)
end

-- The group that a position is in and its number there; nil if it has no result.
function Result.find(key, position)
  local single = BYTE[position]
  if call('HEXISTS', key, single) == 1 then return single, 0 end
  for _, field in ipairs(call('HKEYS', key)) do
    local at = string.find(field, single, 1, true)
    if at then return field, at - 1 end
  end
end

-- The result in a position; false if there is none, as a reply of the server has it.
function Result.read(key, position)
  local field, number = Result.find(key, position)
  if not field then return false end
  local stored = call('HGET', key, field)
  return #field == 1 and stored or Result.of_group(stored, number)
end

-- The positions that have results, in a table.
function Result.positions(key)
  local ended = {}
  for _, field in ipairs(call('HKEYS', key)) do
    for at = 1, #field do ended[byte(field, at)] = true end
  end
  return ended
end

-- All results of a chunk by their positions.
function Result.all(key)
  local results, stored = {}, call('HGETALL', key)
  for i = 1, #stored, 2 do
    local field, value = stored[i], stored[i + 1]
    for at = 1, #field do results[byte(field, at)] = #field == 1 and value or Result.of_group(value, at - 1) end
  end
  return results
end

-- A part of a group: its field, and what is stored there.
function Result.part_of_group(field, group, from, number)
  local start = skip_packed(group, 17, from)
  local head = spack('>I4', sunpack('>I4', group) + from) .. sub(group, 5, 16)
  if number == 1 then start = start + 4 end
  return sub(field, from + 1, from + number), head .. sub(group, start, skip_packed(group, 17, from + number) - 1)
end

-- Takes the result in a position away.
function Result.remove(key, position)
  local field, number = Result.find(key, position)
  if not field then return end
  local group = call('HGET', key, field)
  call('HDEL', key, field)
  if number > 0 then call('HSET', key, Result.part_of_group(field, group, 0, number)) end
  if number + 1 < #field then call('HSET', key, Result.part_of_group(field, group, number + 1, #field - number - 1)) end
end
