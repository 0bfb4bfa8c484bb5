--! deny-oom
-- Creates runs: all those of one call, by parent.
-- ARGV: session, 12 bytes of a new token, how many tasks to keep, 1 if this repeats a call whose reply was lost,
-- retention in ms,
--   then for each group: '' for root runs or parent's tid length (1) tid token (12) uid (16) what it knows (13); number of the arguments
--   that follow for its runs; for each run: the queue element of the first task, the rest of its entry from the priority
--   on, and if the element has the flag SPECIAL: delay (6) queue timeout (6) and as given (8), timeout (6) and as given
--   (8), then an idempotency field; or 65535 (2), length of rid (1) rid of the ended run that it continues and the state
--   with which it begins; times in ms, 0 if none. The flag WATCHED subscribes the session to the run's end. Neither
--   is stored: in a stored tail these bits mean something else. Or for the runs of a span: the element, and in one: for each length (4) and the rest of its entry
-- Reply: now, groups, kept tasks as pairs of (group, run) from 1. A group is 'L', 'E', 'M', 'N', or what was there already as
--   triples of (run, rid, entry without input); the other runs were created.
local SPECIAL, WATCHED = 128, 32
local session, nonce, keep, again, leases_key, new_head, kept, new_roots
-- The children of which group are being created, nil if none are.
local family
-- The workflow of what is being created.
local workflow

-- Whether a queue is not paused, and nothing is ready in it for the session.
local idle
local function is_idle(queue)
  if idle[queue] == nil then
    local keys = list_keys(queue)
    keys[7] = Aside.index(queue)
    for class = 3, 5 do keys[5 + class] = FanOut.workflows(TEXT[class], queue) end
    local is_paused = Pauses.has_queue(queue)
    local is_it = not is_paused and call('EXISTS', unpack(keys)) == 0
    if not is_it and not is_paused and call('EXISTS', unpack(keys, 1, 6)) == 0 then
      local kind = Announced.of(session)
      is_it = #Aside.open_to(kind, queue) == 0 and not FanOut.is_open_to(kind, queue)
    end
    idle[queue] = is_it
  end
  return idle[queue]
end

-- Whether a task of the session's own may be leased to it at once.
local function is_its_own(queue)
  return Announced.can_run(session, workflow) and is_idle(queue)
end

local function keep_task(tid, tail, group, run)
  Lease.add(tid, tail)
  kept[#kept + 1] = group
  kept[#kept + 1] = run
  count('l', queue_of(tail), 1)
end

-- Whether the lost reply of this very call gave the task of an existing run to its session.
local function kept_before(rid, group, run)
  if not again then return false end
  local held = Lease.held(leases_key, rid .. STEP0)
  if not held or token_of(held) ~= nonce then return false end
  kept[#kept + 1] = group
  kept[#kept + 1] = run
  return true
end

-- Subscribes the session to the ends of the runs that are to be watched.
local watched
local function flush_watched()
  in_pieces('HSET', T .. ':o', watched)
  watched = emptied(watched)
end

local place_task
do
  -- Sets the limits of a run's time; its tail and its delay.
  local function apply_extras(rid, tail, extras)
    local delay, wait, raw_wait, limit, raw_limit = sunpack('>I6I6c8I6c8', extras)
    local flags = byte(tail, 1)
    if delay > 0 or wait > 0 or limit > 0 then
      materialise(rid)
      flags = bor(flags, RECORD)
    end
    if wait > 0 then
      flags = bor(flags, QUEUE_TIMED)
      call('HSET', T .. ':r:' .. rid, 'tq', raw_wait, 'qd', exactly + delay + wait)
      Clock.set(delay + wait, 'q' .. rid)
    end
    if limit > 0 then
      flags = bor(flags, RUN_TIMED)
      call('HSET', T .. ':r:' .. rid, 'tr', raw_limit)
      Clock.set(delay + limit, 'r' .. rid)
    end
    return char(flags) .. sub(tail, 2), delay
  end

  local function delay_task(tid, tail, delay)
    local element = element_of(tid, tail)
    Clock.set(delay, 'd' .. element)
    count('d', queue_of(tail), 1)
    set_phase(rid_of(tid), STEP0, 'D', 1, 0, element)
  end

  -- Puts the first task of a run that was just created where it belongs. `tail` is without SPECIAL.
  function place_task(tid, tail, extras, group, run, may_keep)
    local delay = 0
    if band(byte(tail, 1), WATCHED) ~= 0 then
      tail = char(byte(tail, 1) - WATCHED) .. sub(tail, 2)
      watched[#watched + 1] = rid_of(tid)
      watched[#watched + 1] = session
    end
    if extras then tail, delay = apply_extras(rid_of(tid), tail, extras) end
    if delay > 0 then
      delay_task(tid, tail, delay)
    elseif may_keep and #kept < 2 * keep and is_its_own(queue_of(tail)) then
      if band(byte(tail, 1), QUEUE_TIMED) ~= 0 then
        call('ZREM', T .. ':z', 'q' .. rid_of(tid))
        tail = char(byte(tail, 1) - QUEUE_TIMED) .. sub(tail, 2)
      end
      keep_task(tid, tail, group, run)
    else
      make_ready(tail, Lease.element(tid, tail), workflow)
    end
  end
end

-- The first task of an element, which may have extras, and its tail without SPECIAL.
local function first_task(element, extras)
  local tid, tail = split_element(element)
  return tid, extras and char(byte(tail, 1) - SPECIAL) .. sub(tail, 2) or tail
end

-- Gives the roots of this call their places in the order of creation.
local function list_roots()
  local n, members = #new_roots, {}
  if n == 0 then return end
  local before = call('HINCRBY', T, 'roots', n) - n
  for i, rid in ipairs(new_roots) do
    members[2 * i - 1], members[2 * i] = now * 4096 + (before + i) % 4096, rid
  end
  in_pieces('ZADD', T .. ':a', members)
  in_pieces('ZADD', T .. ':a:u', members)
  new_roots = emptied(new_roots)
end

-- Children that are being created: of the journal J, in this group of the request. `may_keep`: whether their tasks may
-- be leased now. Of children with an index one chunk is in use. Those whose keys were never used in this journal are
-- gathered and appended at once.
local function open_family(J, group, may_keep)
  return {
    J = J, group = group, may_keep = may_keep, created = 0, new = 0, found = {},
    chunk = nil, key = nil, results = nil, segments = nil, new_chunks = {},
    first = nil, entries = nil, places = nil, gathered = nil,
  }
end

local function go_to_chunk(number)
  if number == family.chunk then return end
  local name = family.J .. spack('>I4', number)
  family.chunk, family.key, family.results = number, T .. ':c:' .. name, T .. ':C:' .. name
  family.segments = call('HKEYS', family.key)
end

-- Has the chunk listed if it is new.
local function list_chunk()
  if #family.segments > 0 then return end
  if #family.new_chunks == 0 then Touch.list(':b:', family.J) end
  family.new_chunks[#family.new_chunks + 1] = spack('>I4', family.chunk)
end

local function are_free(at, number)
  for _, field in ipairs(family.segments) do
    local first, some = byte(field, 1, 2)
    if first < at + number and at < first + some then return false end
  end
  return true
end

local function write_keyed()
  if not family.first then return end
  local n, J, from = #family.entries, family.J, 1
  while from <= n do
    local chunk, at = chunk_of(J, family.first + from - 1)
    local upto = math.min(n, from + 63 - at)
    call('RPUSH', T .. ':e:' .. chunk, unpack(family.entries, from, upto))
    from = upto + 1
  end
  in_pieces('HSET', T .. ':x:' .. J, family.places)
  for i = 1, 2 * n, 2 do Places.note(J, family.places[i], family.places[i + 1]) end
  call('HSET', T .. ':j:' .. J, 'k', family.first + n)
  family.first, family.entries, family.places, family.gathered = nil, nil, nil, nil
end

local function append_keyed(slot, entry)
  if not family.first then
    family.first = tonumber(call('HGET', T .. ':j:' .. family.J, 'k') or 0)
    family.entries, family.places, family.gathered = {}, {}, {}
  end
  local n = #family.entries
  local chunk, at = chunk_of(family.J, family.first + n)
  if n == 0 or at == 0 then Touch.list(':e:', chunk) end
  family.entries[n + 1] = slot .. entry
  family.places[2 * n + 1], family.places[2 * n + 2] = slot, family.first + n
  family.gathered[slot] = true
end

-- Writes down the children that were created so far.
local function settle()
  if not family then return end
  write_keyed()
  in_pieces('RPUSH', T .. ':b:' .. family.J, family.new_chunks)
  family.new_chunks = {}
  if family.created == 0 then return end
  local journal = T .. ':j:' .. family.J
  local stored = call('HMGET', journal, 'n', 'u', 'R')
  call('HSET', journal, 'n', tonumber(stored[1] or 0) + family.new, 'u', tonumber(stored[2] or 0) + family.created)
  call('HINCRBY', T .. ':r:' .. stored[3], 'L', TEXT[family.created] or family.created)
  family.created, family.new = 0, 0
end

-- A child in a slot that was used: it may follow the generation that is there.
local function start_again(element, entry, stored, slot, key, results, at, extras, run)
  local rid = rid_of((split_element(element)))
  local before, generation, found = (sunpack('>I4', stored)), generation_of(rid), family.found
  local result = generation == before + 1 and Result.read(results, at)
  if result then
    Run.keep_replaced(family.J, slot, stored, result)
    Result.remove(results, at)
    if byte(slot, 1) == 105 then
      Segment.write_one(key, at, entry)
    else
      call('LSET', key, at, slot .. entry)
    end
    family.created = family.created + 1
    local tid, tail = first_task(element, extras)
    return place_task(tid, tail, extras, family.group, run, family.may_keep)
  end
  if generation == before and kept_before(rid, family.group, run) then return end
  found[#found + 1] = run
  found[#found + 1] = child_rid(family.J, slot, before)
  found[#found + 1] = without_input(stored)
end

local function created_one(element, extras, run)
  family.created, family.new = family.created + 1, family.new + 1
  local tid, tail = first_task(element, extras)
  place_task(tid, tail, extras, family.group, run, family.may_keep)
end

local function start_indexed(element, entry, extras, run)
  local number = (sunpack('>I4', element, 21))
  go_to_chunk(floor(number / 64))
  local at = number % 64
  if not are_free(at, 1) then
    local stored, slot = Segment.entry(family.key, at), sub(element, 20, 24)
    return start_again(element, entry, stored, slot, family.key, family.results, at, extras, run)
  end
  list_chunk()
  Segment.write_one(family.key, at, entry)
  family.segments[#family.segments + 1] = BYTE[at] .. BYTE[1]
  created_one(element, extras, run)
end

local function start_keyed(element, entry, extras, run)
  local slot = sub(element, 20, 36)
  if family.first and family.gathered[slot] then write_keyed() end
  local list, results, at = place_of_slot(family.J, slot)
  if list then
    return start_again(element, entry, read_child(list, at, slot), slot, list, results, at, extras, run)
  end
  append_keyed(slot, entry)
  created_one(element, extras, run)
end

-- Looks up the places of all keys at once.
local function look_up_keys(first, last)
  local slots, at = {}, first
  while at <= last do
    local element = ARGV[at]
    local n = byte(element, 1)
    if n > 0 and byte(element, 20) == 107 then slots[#slots + 1] = sub(element, 20, 36) end
    at = at + (n > 0 and byte(element, n + 2) >= SPECIAL and 3 or 2)
  end
  if #slots > 0 then Places.look_up(family.J, slots) end
end

-- How many tasks of neighbours are kept, as far as more are to be.
local function kept_of_span(number, tail)
  local some = family.may_keep and math.max(0, math.min(number, keep - #kept / 2)) or 0
  return some > 0 and is_its_own(queue_of(tail)) and some or 0
end

-- Keeps the first `some` tasks of neighbours that were just created and makes the others ready.
local function place_span(element, first_index, number, tail, run, some)
  if some == 0 then return make_ready(tail, element, workflow, number) end
  local chunk, at = chunk_of(family.J, first_index)
  Lease.add_places(chunk, sub(PLACES, at + 1, at + some), tail)
  count('l', queue_of(tail), some)
  for n = 1, some do
    kept[#kept + 1] = family.group
    kept[#kept + 1] = run + n
  end
  if some < number then
    make_ready(tail, span_element(family.J, first_index + some, number - some, tail), workflow, number - some)
  end
end

-- Neighbours in one chunk, the first of which has the number `run` + 1. They are created as a whole where none is
-- there.
local function start_span(element, packed, run)
  local J, first_index, number, tail = split_span(element)
  local at = first_index % 64
  workflow = Announced.workflow_at(packed, Announced.IN_PACKED)
  go_to_chunk(floor(first_index / 64))
  local some = kept_of_span(number, tail)
  if some < number then Touch.queue(tail, element, workflow) end
  if are_free(at, number) then
    list_chunk()
    Segment.write(family.key, at, number, new_head .. packed)
    -- What comes next is mostly in another chunk; if it is not, this one is looked at again.
    family.chunk = nil
    family.created, family.new = family.created + number, family.new + number
    place_span(element, first_index, number, tail, run, some)
  else
    Touch.queue(tail, element, workflow)
    for n = 0, number - 1 do
      local tid = J .. 'i' .. spack('>I4', first_index + n) .. STEP0
      start_indexed(element_of(tid, tail), new_head .. packed_string(packed, 1, n), nil, run + n + 1)
    end
  end
  return number
end

local function start_one(element, rest, extras, run)
  local tid, tail = first_task(element, extras)
  local entry = spack('>I4I6', generation_of(rid_of(tid)), now) .. rest
  workflow = Announced.workflow_at(rest, 1)
  -- What its first task needs is looked at before the child is written.
  Touch.queue(tail, element, workflow)
  if extras then Touch.run(rid_of(tid)) end
  if byte(element, 20) == 105 then
    start_indexed(element, entry, extras, run)
  else
    start_keyed(element, entry, extras, run)
  end
end

-- The children of one group, which are the arguments from `first` to `last`; what was there of them.
local function start_children(J, first, last, group, may_keep)
  family = open_family(J, group, may_keep)
  look_up_keys(first, last)
  local i, run = first, 0
  while i <= last do
    local element, rest = ARGV[i], ARGV[i + 1]
    i = i + 2
    if byte(element, 1) == 0 then
      run = run + start_span(element, rest, run)
    else
      local extras
      if byte(element, byte(element, 1) + 2) >= SPECIAL then
        extras = ARGV[i]
        i = i + 1
      end
      run = run + 1
      start_one(element, rest, extras, run)
    end
  end
  settle()
  return family.found
end

local start_roots
do
  -- The root runs of one group that are known not to be there.
  local absent

  -- The ended run that a root run continues and the state with which it begins; nil if it continues none.
  local function continued(field)
    if sub(field, 1, 2) ~= '\255\255' then return nil end
    local from, at = sunpack('>Bc0', field, 3)
    return from, sub(field, at)
  end

  -- Has a new run begin with what an ended run leaves to it, and each of the two know of the other.
  local function continue_run(rid, from, state)
    Touch.run(from)
    Touch.run(rid)
    Touch.hash(':u:', rid)
    local outputs = call('HGETALL', T .. ':u:' .. from)
    call('HSET', T .. ':r:' .. rid, 'S', state, 'f', from)
    in_pieces('HSET', T .. ':u:' .. rid, outputs)
    materialise(from)
    call('HSET', T .. ':r:' .. from, 'F', (call('HGET', T .. ':r:' .. from, 'F') or '') .. rid)
  end

  local function start_root(element, rest, extras, group, run, found)
    local tid, tail = first_task(element, extras)
    local rid, field = rid_of(tid), extras and sub(extras, 35) or ''
    local record = T .. ':r:' .. rid
    local is_there = not absent[rid] and call('EXISTS', record) == 1
    absent[rid] = nil
    local from, state = continued(field)
    if from then field = '' end
    local stored = is_there and rid or (field ~= '' and call('HGET', T .. ':d', field))
    if stored then
      if not kept_before(stored, group, run) then
        found[#found + 1] = run
        found[#found + 1] = stored
        found[#found + 1] = without_input(call('HGET', T .. ':r:' .. stored, 's'))
      end
      return
    end
    if from and (Run.is_removed(from) or not result_of(from)) then return 'N' end
    if extras then Touch.run(rid) end
    Touch.queue(tail)
    workflow = Announced.workflow_at(rest, 1)
    if from then continue_run(rid, from, state) end
    call('HSET', record, 's', new_head .. rest, 'L', 1, 'w', workflow)
    if field ~= '' then
      call('HSET', record, 'd', field)
      call('HSET', T .. ':d', field, rid)
    end
    new_roots[#new_roots + 1] = rid
    Roots.note_start(queue_of(tail))
    place_task(tid, tail, extras, group, run, not from)
  end

  -- Looks whether they are there, all at once.
  local function look_up_roots(first, last)
    local keys, rids, at = {}, {}, first
    while at <= last do
      local element = ARGV[at]
      local n = byte(element, 1)
      local rid = sub(element, 2, n - 1)
      rids[#rids + 1], keys[#keys + 1] = rid, T .. ':r:' .. rid
      at = at + (byte(element, n + 2) >= SPECIAL and 3 or 2)
    end
    absent = emptied(absent)
    if #keys == 0 or call('EXISTS', unpack(keys)) > 0 then return end
    for _, rid in ipairs(rids) do absent[rid] = true end
  end

  function start_roots(first, last, group)
    look_up_roots(first, last)
    local found, i, run = {}, first, 0
    while i <= last do
      run = run + 1
      local element, rest, extras = ARGV[i], ARGV[i + 1], nil
      i = i + 2
      if byte(element, byte(element, 1) + 2) >= SPECIAL then
        extras = ARGV[i]
        i = i + 1
      end
      local refused = start_root(element, rest, extras, group, run, found)
      if refused then return refused end
    end
    return found
  end
end

-- Makes sure that the lease is held and the journal is there: its name, or nil and the refusal; and whether tasks of
-- its children may be leased now, which they may not while an ancestor's end is about to cancel them.
local function parent_of(packed)
  local tid, token, uid, known = sunpack('>Bc0c12c16c13', packed)
  local rid = rid_of(tid)
  local held = Lease.held(leases_key, tid)
  if not held or token_of(held) ~= token then return nil, Run.refusal(rid) end
  if known ~= Run.KNOWS_NOTHING and Run.knows_more(rid, uid .. sub(tid, -2), known) then return nil, 'M' end
  local flags = flags_of(held)
  local may_keep = keep == 0 or not Run.doom_of(rid, band(flags, DETACHED) ~= 0)
  if band(flags, JOURNALED) ~= 0 then return uid .. sub(tid, -2), nil, may_keep end
  local J = open_journal(rid, uid, sub(tid, -2), session)
  Lease.put(leases_key, tid, with_flags(held, bor(RECORD, JOURNALED)))
  return J, nil, may_keep
end

-- Writes what was gathered.
local function write_gathered()
  settle()
  list_roots()
  flush_watched()
  Lease.flush(leases_key, nonce .. now6)
  flush_all()
end

local function command()
  session, nonce, keep, again = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
  retention = tonumber(ARGV[5])
  if not alive(session) then return session_lost() end
  leases_key, new_head = T .. ':l:' .. session, spack('>I4I6', 0, now)
  kept, watched, new_roots, idle, family = {}, emptied(watched), emptied(new_roots), emptied(idle), nil
  conclude_call = write_gathered
  local groups, i = {}, 6
  while i <= #ARGV do
    local parent, parts = ARGV[i], tonumber(ARGV[i + 1])
    local group, first, last = #groups + 1, i + 2, i + 1 + parts
    if parent == '' then
      groups[group] = start_roots(first, last, group)
    else
      local J, refused, may_keep = parent_of(parent)
      groups[group] = J and start_children(J, first, last, group, may_keep) or refused
    end
    i = last + 1
  end
  write_gathered()
  return { now, groups, kept }
end
