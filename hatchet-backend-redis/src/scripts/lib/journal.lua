-- Journals: where children and named entries are, and their resolutions.
--
-- A journal is named J: the run's uid (16) and the step (2). Children with an index are in chunks of 64, addressed by
-- their index (see chunk.lua); named entries and children with a key are in chunks in the order in which they were
-- written (lists), found through a hash. Beside each chunk stands a hash with the resolutions.
--
--   result   sequence (4) started (6) ended (6) kind (1) and the rest
--   entry    generation (4) created (6) priority and 128 if detached (1) queue length (1) queue, head length (4) head,
--   input
local function chunk_of(J, number)
  return J .. spack('>I4', floor(number / 64)), number % 64
end

Clock.chunk_of = chunk_of

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

local function size_of(key)
  return call('MEMORY', 'USAGE', key, 'SAMPLES', 0) or 0
end

-- Whether the payloads in a chunk are too large to be read all at once.
local function is_large(key)
  return size_of(key) > 262144
end

-- The stored entry of a child, of whatever generation, without the slot that stands before it in an ordered chunk.
local function read_child(list, at, slot)
  if byte(slot, 1) == 105 then return Segment.entry(list, at) end
  local entry = call('LINDEX', list, at)
  return entry and sub(entry, #slot + 1) or nil
end

-- The positions of a chunk in which something is, in their order.
local function positions_of(family, key)
  if family == 'c' then return Segment.positions(key) end
  local positions = {}
  for at = 0, call('LLEN', key) - 1 do positions[at + 1] = at end
  return positions
end

-- What is in one of them: a slot and the entry of a child, or nil and a named entry. `first` is the chunk's first
-- number.
local function stored_at(family, key, first, at)
  if family == 'c' then return 'i' .. spack('>I4', first + at), Segment.entry(key, at) end
  local stored = call('LINDEX', key, at)
  if byte(stored, 1) == 107 then return sub(stored, 1, 17), sub(stored, 18) end
  return nil, stored
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

local journal_of
do
  -- The uid of a run follows from its name. So those of which a timer fired just now are remembered: most of them end soon.
  local recent, before, number = {}, {}, 0
  local MOST = 4096

  -- Remembers that a journal is one of this run.
  function Places.remember(rid, J)
    if #rid == 16 then return end
    if number == MOST then recent, before, number = {}, recent, 0 end
    recent[rid], number = J, number + 1
  end

  function journal_of(rid, step)
    local other = recent[rid] or before[rid]
    if other then return sub(other, 1, 16) .. step end
    local uid = #rid == 16 and rid or call('HGET', T .. ':r:' .. rid, 'U')
    return uid and uid .. step
  end
end

-- The roots of trees that this call has asked for, by a journal in them.
local roots
local function root_of(rid)
  if #rid == 16 then return rid end
  local J = parent_journal(rid)
  if not roots[J] then roots[J] = call('HGET', T .. ':j:' .. J, 'R') end
  return roots[J]
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

-- Makes the journal of a leased task; its name, and whether it is new.
local function open_journal(rid, uid, step, session)
  local J, record = uid .. step, T .. ':r:' .. rid
  local key = T .. ':j:' .. J
  local known = call('HMGET', record, 'v', 'j')
  Touch.hash(':t:', rid)
  if #rid > 16 then Touch.list(':M:', parent_journal(rid)) end
  if call('HGET', key, 'o') then
    call('HSET', key, 's', session)
    return J, false
  end
  local root = root_of(rid)
  if #rid > 16 and not known[1] then
    call('RPUSH', T .. ':M:' .. parent_journal(rid), rid)
    call('HSET', record, 'v', 1, 'U', uid, 'j', (known[2] or '') .. step)
  else
    call('HSET', record, 'U', uid, 'j', (known[2] or '') .. step)
  end
  call('HSET', key, 'o', rid, 'R', root, 's', session)
  return J, true
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

-- Makes sure that a parked task can be made ready.
function Touch.parked(element)
  local tid, tail = split_element(element)
  Touch.hash(':t:', rid_of(tid))
  Touch.queue(tail)
end

-- Takes a task out of its parking place; its element and tail, nil if it is not parked. `parked`: what is stored of that, if it was read
-- and looked at.
local function leave_park(J, parked)
  local key = T .. ':j:' .. J
  if not parked then
    parked = call('HMGET', key, 'pe', 'pz')
    if not parked[1] then return nil end
    Touch.parked(parked[1])
  end
  call('HDEL', key, 'p', 'pe', 'pz')
  if parked[2] then call('ZREM', T .. ':z', 'p' .. J) end
  local tid, tail = split_element(parked[1])
  count('p', queue_of(tail), -1)
  return parked[1], tid, tail
end

local function unpark(J, parked)
  local element, tid, tail = leave_park(J, parked)
  if not element then return false end
  local task = read_tail(tail)
  set_phase(rid_of(tid), sub(tid, -2), 'R', task.attempt, task.recoveries)
  make_ready(tail, element)
  return true
end

-- Resolutions are gathered by journal and written by flush_journals, a command for each chunk.
--
-- A group has what is stored of the journal, which nothing else may change until the group is flushed, the sequence
-- numbers before it and of its latest resolution, how many of its timers fired, and pieces: what is set in the
-- resolutions of one chunk, positions and what is stored of them in turns. Of a piece only what stands from `from` on is left to be
-- written. `known`: the hashes of resolutions that can be written, but the one of the latest piece.
local resolved, resolved_order
function Places.read_journal(J)
  return call('HMGET', T .. ':j:' .. J, 'q', 'pe', 's', 'p', 'o', 'u', 'R', 'tm', 'pz')
end

-- `journal`: what is stored of it, if that was read.
local function group_of(J, journal)
  local group = resolved[J]
  if group then return group end
  journal = journal or Places.read_journal(J)
  local before = tonumber(journal[1] or 0)
  if journal[2] then Touch.parked(journal[2]) end
  group = {
    pieces = {}, children = 0, ends = 0, n = 0, fired = 0, before = before, sequence = before, holder = journal[3],
    parked = journal[4], owner = journal[5], unfinished = tonumber(journal[6] or 0), root = journal[7],
    timers = tonumber(journal[8] or 0), task = journal[2] and { journal[2], journal[9] },
  }
  resolved[J] = group
  resolved_order[#resolved_order + 1] = J
  return group
end

-- The piece for a hash whose type is known.
local function known_piece(group, results)
  local piece = group.piece
  if piece and piece.results == results then return piece end
  if piece then
    group.known = group.known or {}
    group.known[piece.results] = true
  end
  piece = { results = results, n = 0, from = 1 }
  group.piece = piece
  group.pieces[#group.pieces + 1] = piece
  return piece
end

local function is_known(group, results)
  return group.piece and group.piece.results == results or group.known and group.known[results]
end

local function piece_for(group, results)
  if not is_known(group, results) then call('HLEN', results) end
  return known_piece(group, results)
end

-- Makes sure that a run's result can be written.
function Touch.result(rid)
  if #rid == 16 then return end
  local J = parent_journal(rid)
  piece_for(group_of(J), (select(2, place_of_slot(J, slot_of(rid)))))
end

-- The next sequence number of a group as bytes.
local function next_sequence(group)
  group.sequence = group.sequence + 1
  return spack('>I4', group.sequence)
end

-- `key` is a slot, or 'n' and a name; nil for a child with an index, whose place says it. `moments` is when it started
-- and ended (12), `rest` its kind and what belongs to that.
local function resolve(J, results, at, key, moments, rest, is_child)
  local group = group_of(J)
  local stored, at_once = spack('>I4', group.sequence + 1) .. moments .. rest, group.owner and not is_known(group, results)
  -- The first in a hash is written at once, before anything else is changed: an error if the hash cannot be written.
  if at_once then call('HSET', results, BYTE[at], stored) end
  local piece = at_once and known_piece(group, results) or piece_for(group, results)
  local n = piece.n
  piece[n + 1], piece[n + 2] = BYTE[at], stored
  if key then
    piece.keys = piece.keys or {}
    piece.keys[n + 1] = key
  end
  piece.n, group.n, group.sequence = n + 2, group.n + 1, group.sequence + 1
  if at_once then piece.from = n + 3 end
  if is_child then
    group.children = group.children + 1
    if byte(rest, 1) ~= 115 then group.failed = group.sequence end
  end
end

local flush_journals
do
  -- What tells the holder of a journal of resolutions: kind, J, owner, then for each: length of its key (2) key, length
  -- (4) result; or of several children 0 (2) the chunk's first index (4) their number (1) positions, length (4) and
  -- what is stored of them. Of ends that the caller itself has committed it is told only after which sequence number
  -- they come (4) and how many they are (4), since it knows the rest.
  local function resolved_event(J, group, to_caller)
    local start = J .. char(#group.owner) .. group.owner
    if to_caller and group.ends == group.n then return 'C' .. start .. spack('>I4I4', group.before, group.n) end
    local items = { 'R' .. start }
    for _, piece in ipairs(group.pieces) do
      local first = (sunpack('>I4', sub(piece.results, -4))) * 64
      for n = 1, piece.n, 2 do
        local positions, stored = piece[n], piece[n + 1]
        if #positions == 1 then
          local key = piece.keys and piece.keys[n] or 'i' .. spack('>I4', first + byte(positions))
          items[#items + 1] = spack('>Hc0I4', #key, key, #stored)
        else
          items[#items + 1] = spack('>HI4Bc0I4', 0, first, #positions, positions, #stored)
        end
        items[#items + 1] = stored
      end
    end
    return table.concat(items)
  end

  -- What a group changes in its journal: fields and values in turns.
  local function changes_of(group)
    local fields = { 'q', group.sequence }
    if group.children > 0 then
      fields[3], fields[4] = 'u', group.unfinished - group.children
      if group.failed then fields[5], fields[6] = 'lf', group.failed end
    end
    if group.fired > 0 then
      fields[#fields + 1] = 'tm'
      fields[#fields + 1] = group.timers - group.fired
    end
    return fields
  end

  local function flush_journal(J, group)
    local key, holder = T .. ':j:' .. J, group.holder
    if not group.owner or group.n == 0 and group.fired == 0 then return end
    for _, piece in ipairs(group.pieces) do
      if piece.n >= piece.from then call('HSET', piece.results, unpack(piece, piece.from, piece.n)) end
    end
    call('HSET', key, unpack(changes_of(group)))
    if group.n == 0 then return end
    if holder then
      notify(holder, resolved_event(J, group, holder == caller), true)
    elseif group.parked then
      local at_sequence, on_failure = sunpack('>I4B', group.parked)
      if group.sequence >= at_sequence or (on_failure == 1 and group.failed) then unpark(J, group.task) end
    end
    if group.children > 0 then run_ended_in_tree(group.root, group.children) end
  end

  function flush_journals()
    -- A journal that wakes a parent may not resolve others, so one round is enough.
    for _, J in ipairs(resolved_order) do flush_journal(J, resolved[J]) end
    resolved, resolved_order = emptied(resolved), emptied(resolved_order)
    in_pieces('ZADD', T .. ':x', to_forget)
    to_forget = emptied(to_forget)
  end
end
