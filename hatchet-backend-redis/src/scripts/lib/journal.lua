-- Journals: where children and named entries are, and their resolutions.
--
-- A journal is named J: the run's uid (16) and the step (2). Children with an index are in chunks of 64 (lists),
-- addressed by their index; named entries and children with a key are in chunks in the order in which they were
-- written, found through a hash. Beside each chunk stands a hash with the resolutions: position -> sequence (4) started
-- (6) ended (6) kind (1) and the rest.
--
--   entry    generation (4) created (6) priority and 128 if detached (1) queue length (1) queue, head length (4) head,
--   input
local function chunk_of(J, number)
  return J .. spack('>I4', floor(number / 64)), number % 64
end

local function parent_journal(rid)
  return sub(rid, 1, 18)
end

-- 'i' and the index, or 'k' and the hash.
local function slot_of(rid)
  return sub(rid, 19, byte(rid, 19) == 105 and 23 or 35)
end

local function generation_of(rid)
  local n = #rid
  if n == 27 then return (sunpack('>I4', rid, 24)) end
  if n == 39 then return (sunpack('>I4', rid, 36)) end
  return 0
end

local function child_rid(J, slot, generation)
  return J .. slot .. (generation > 0 and spack('>I4', generation) or '')
end

-- Places of keys that this call has looked up, by journal: slot -> place, or false if the key was never used. A key
-- that has a place keeps it; who gives one to a key notes it with Places.note.
local looked_up
local Places = {}

function Places.note(J, slot, number)
  local places = looked_up[J]
  if not places then
    places = { of = {}, chunks = {} }
    looked_up[J] = places
  end
  if not number then
    places.of[slot] = false
    return
  end
  local index = floor(number / 64)
  local chunk = places.chunks[index]
  if not chunk then
    local name = J .. spack('>I4', index)
    chunk = { list = T .. ':e:' .. name, results = T .. ':E:' .. name }
    places.chunks[index] = chunk
  end
  places.of[slot] = { chunk = chunk, at = number % 64 }
end

function Places.look_up(J, slots)
  for from = 1, #slots, 1000 do
    local upto = math.min(from + 999, #slots)
    local numbers = call('HMGET', T .. ':x:' .. J, unpack(slots, from, upto))
    for i = from, upto do Places.note(J, slots[i], numbers[i - from + 1] and tonumber(numbers[i - from + 1])) end
  end
end

-- The same for those among some tasks that are of children with keys.
function Places.look_up_tasks(tids)
  local slots_of, journals = {}, {}
  for _, tid in ipairs(tids) do
    if #tid >= 37 and byte(tid, 19) == 107 then
      local J = sub(tid, 1, 18)
      local slots = slots_of[J]
      if not slots then
        slots = {}
        slots_of[J], journals[#journals + 1] = slots, J
      end
      slots[#slots + 1] = sub(tid, 19, 35)
    end
  end
  for _, J in ipairs(journals) do Places.look_up(J, slots_of[J]) end
end

-- The keys of the chunk and of its resolutions, and the position there; nil if a key was never used.
local function place_of_slot(J, slot)
  if byte(slot, 1) == 105 then
    local chunk, at = chunk_of(J, (sunpack('>I4', slot, 2)))
    return T .. ':c:' .. chunk, T .. ':C:' .. chunk, at
  end
  if not looked_up[J] or looked_up[J].of[slot] == nil then Places.look_up(J, { slot }) end
  local place = looked_up[J].of[slot]
  if not place then return nil end
  return place.chunk.list, place.chunk.results, place.at
end

-- Whether the payloads in a chunk are too large to be read all at once.
local function is_large(key)
  return (call('MEMORY', 'USAGE', key, 'SAMPLES', 0) or 0) > 262144
end

-- The stored entry of a child, of whatever generation, without the slot that stands before it in an ordered chunk.
local function read_child(list, at, slot)
  local entry = call('LINDEX', list, at)
  if not entry or entry == '' then return nil end
  if byte(slot, 1) == 107 then return sub(entry, #slot + 1) end
  return entry
end

local function entry_meta(entry)
  local generation, created, mark, queue = sunpack('>I4I6BBc0', entry)
  return { generation = generation, created = created, prio = mark % 128, detached = mark >= 128, queue = queue }
end

-- The entry without the input.
local function without_input(entry)
  local _, _, _, _, head, at = sunpack('>I4I6BBc0I4', entry)
  return sub(entry, 1, at - 1 + head)
end

local function journal_of(rid, step)
  local uid = #rid == 16 and rid or call('HGET', T .. ':r:' .. rid, 'U')
  return uid and uid .. step
end

local function root_of(rid)
  if #rid == 16 then return rid end
  return call('HGET', T .. ':j:' .. parent_journal(rid), 'R')
end

-- Makes what a run needs beyond its entry in its parent's journal.
local function materialise(rid)
  if #rid > 16 and call('HSETNX', T .. ':r:' .. rid, 'v', 1) == 1 then
    call('RPUSH', T .. ':M:' .. parent_journal(rid), rid)
  end
end

-- Makes sure that a run can get a record and tasks of its own.
function Touch.run(rid)
  Touch.hash(':r:', rid)
  Touch.hash(':t:', rid)
  if #rid > 16 then Touch.list(':M:', parent_journal(rid)) end
end

-- Makes the journal of a leased task.
local function open_journal(rid, uid, step, session)
  local J = uid .. step
  Touch.run(rid)
  local key = T .. ':j:' .. J
  if call('HSETNX', key, 'o', rid) == 1 then
    materialise(rid)
    local record = T .. ':r:' .. rid
    call('HSET', record, 'U', uid, 'j', (call('HGET', record, 'j') or '') .. step)
    call('HSET', key, 'R', root_of(rid))
  end
  call('HSET', key, 's', session)
  return J
end

-- A tree all of which has ended goes when its root did so the retention time ago. These are gathered, pairs of a moment
-- and a root, and written by flush_journals. `ended` is when the root ended, nil if that must be read.
local retention, to_forget
local function run_ended_in_tree(root, runs, ended)
  local record = T .. ':r:' .. root
  if call('HINCRBY', record, 'L', -runs) > 0 then return end
  to_forget[#to_forget + 1] = (ended or sunpack('>I6', call('HGET', record, 'e'), 11)) + retention
  to_forget[#to_forget + 1] = root
end

local function set_phase(rid, step, phase, attempt, recoveries, rest)
  call('HSET', T .. ':t:' .. rid, step, phase .. spack('>I4I4', attempt, recoveries) .. (rest or ''))
end

-- Takes a task out of its parking place; its element and tail, nil if it is not parked.
local function leave_park(J)
  local key = T .. ':j:' .. J
  local parked = call('HMGET', key, 'pe', 'pz')
  if not parked[1] then return nil end
  Touch.queue(select(2, split_element(parked[1])))
  call('HDEL', key, 'p', 'pe', 'pz')
  if parked[2] then call('ZREM', T .. ':z', 'p' .. J) end
  local tid, tail = split_element(parked[1])
  count('p', queue_of(tail), -1)
  return parked[1], tid, tail
end

local function unpark(J)
  local element, tid, tail = leave_park(J)
  if not element then return false end
  local task = read_tail(tail)
  set_phase(rid_of(tid), sub(tid, -2), 'R', task.attempt, task.recoveries)
  make_ready(tail, element)
  return true
end

-- Resolutions are gathered by journal and written by flush_journals, a command for each chunk.
--
-- A group has the sequence numbers before it and of its latest resolution, and pieces: what is set in the resolutions
-- of one chunk, position and result in turns.
local resolved, resolved_order
local function group_of(J)
  local group = resolved[J]
  if group then return group end
  local journal = call('HMGET', T .. ':j:' .. J, 'q', 'pe')
  local before = tonumber(journal[1] or 0)
  if journal[2] then Touch.queue(select(2, split_element(journal[2]))) end
  group = { pieces = {}, children = 0, ends = 0, n = 0, before = before, sequence = before }
  resolved[J] = group
  resolved_order[#resolved_order + 1] = J
  return group
end

local function piece_for(group, results)
  local piece = group.piece
  if not piece or piece.results ~= results then
    call('HLEN', results)
    piece = { results = results, n = 0, keys = {} }
    group.piece = piece
    group.pieces[#group.pieces + 1] = piece
  end
  return piece
end

-- Makes sure that a run's result can be written.
function Touch.result(rid)
  if #rid == 16 then return end
  local J = parent_journal(rid)
  piece_for(group_of(J), (select(2, place_of_slot(J, slot_of(rid)))))
end

-- The next sequence number of a group as bytes. Three of the four are mostly those of the one before.
local function next_sequence(group)
  local sequence = group.sequence + 1
  local low = sequence % 256
  if low == 0 or not group.high then group.high = sub(spack('>I4', sequence), 1, 3) end
  group.sequence = sequence
  return group.high .. BYTE[low]
end

-- `key` is a slot, or 'n' and a name; nil for a child with an index, whose place says it. `moments` is when it started
-- and ended (12), `rest` its kind and what belongs to that.
local function resolve(J, results, at, key, moments, rest, is_child)
  local group = group_of(J)
  local piece = piece_for(group, results)
  local n = piece.n
  piece[n + 1], piece[n + 2], piece.keys[n + 1] = TEXT[at], next_sequence(group) .. moments .. rest, key
  piece.n, group.n = n + 2, group.n + 1
  if is_child then
    group.children = group.children + 1
    if byte(rest, 1) ~= 115 then group.failed = group.sequence end
  end
end

-- What tells the holder of a journal of resolutions: kind, J, owner, then for each: key, result. Of ends that the
-- caller itself has committed it is told only after which sequence number they come (4) and how many they are (4),
-- since it knows the rest.
local function resolved_event(J, owner, group, to_caller)
  local start = J .. char(#owner) .. owner
  if to_caller and group.ends == group.n then return 'C' .. start .. spack('>I4I4', group.before, group.n) end
  local items = { 'R' .. start }
  for _, piece in ipairs(group.pieces) do
    local first = (sunpack('>I4', sub(piece.results, -4))) * 64
    for n = 1, piece.n, 2 do
      local key, result = piece.keys[n] or 'i' .. spack('>I4', first + piece[n]), piece[n + 1]
      items[#items + 1] = spack('>Hc0I4', #key, key, #result)
      items[#items + 1] = result
    end
  end
  return table.concat(items)
end

local function flush_journal(J, group)
  local key = T .. ':j:' .. J
  local stored = call('HMGET', key, 's', 'p', 'o', 'u', 'R')
  local holder, parked, owner = stored[1], stored[2], stored[3]
  if not owner or group.n == 0 then return end
  for _, piece in ipairs(group.pieces) do
    if piece.n > 0 then call('HSET', piece.results, unpack(piece, 1, piece.n)) end
  end
  if group.failed then call('HSET', key, 'lf', group.failed) end
  call('HSET', key, 'q', group.sequence, 'u', tonumber(stored[4] or 0) - group.children)
  if holder then
    notify(holder, resolved_event(J, owner, group, holder == caller), true)
  elseif parked then
    local at_sequence, on_failure = sunpack('>I4B', parked)
    if group.sequence >= at_sequence or (on_failure == 1 and group.failed) then unpark(J) end
  end
  if group.children > 0 then run_ended_in_tree(stored[5], group.children) end
end

local function flush_journals()
  -- A journal that wakes a parent may not resolve others, so one round is enough.
  for _, J in ipairs(resolved_order) do flush_journal(J, resolved[J]) end
  resolved, resolved_order = {}, {}
  in_pieces('ZADD', T .. ':x', to_forget)
  to_forget = {}
end
