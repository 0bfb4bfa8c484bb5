--! deny-oom
-- Creates runs: all those of one call, by parent.
-- ARGV: session, 12 bytes of a new token, how many tasks to keep, 1 if this repeats a call whose reply was lost,
-- retention in ms,
--   then for each group: '' for root runs or parent's tid length (1) tid token (12) uid (16); number of the arguments
--   that follow for its runs; for each run, or all runs of a span: the queue element of the first task, the rest of
--   each entry from the priority on, and if the element has the flag SPECIAL, which is not stored: delay (6) queue
--   timeout (6) and as given (8), timeout (6) and as given (8), idempotency field; times in ms, 0 if none
-- Reply: now, groups, kept tasks as pairs of (group, run) from 1. A group is 'L', 'E', or what was there already as
-- triples of
--   (run, rid, entry without input); the other runs were created.
local SPECIAL = 128
local session, nonce, keep, again = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
retention = tonumber(ARGV[5])
if not alive(session) then return session_lost() end
local leases_key = T .. ':l:' .. session
local new_head, lease_head = spack('>I4I6', 0, now), nonce .. now6
local kept, new_roots = {}, {}
-- Writes down the children that were created so far.
local settle = function() end

local idle = {}
local function is_idle(queue)
  if idle[queue] == nil then idle[queue] = call('EXISTS', unpack(list_keys(queue))) == 0 end
  return idle[queue]
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

-- Sets the limits of a run's time; its tail and its delay.
local function apply_extras(rid, tail, extras)
  local delay, wait, raw_wait, limit, raw_limit = sunpack('>I6I6c8I6c8', extras)
  local flags = byte(tail, 1) - SPECIAL
  if delay > 0 or wait > 0 or limit > 0 then
    materialise(rid)
    flags = bor(flags, RECORD)
  end
  if wait > 0 then
    flags = bor(flags, QUEUE_TIMED)
    call('HSET', T .. ':r:' .. rid, 'tq', raw_wait)
    call('ZADD', T .. ':z', exactly + delay + wait, 'q' .. rid)
  end
  if limit > 0 then
    call('HSET', T .. ':r:' .. rid, 'tr', raw_limit)
    call('ZADD', T .. ':z', exactly + delay + limit, 'r' .. rid)
  end
  return char(flags) .. sub(tail, 2), delay
end

local function delay_task(tid, tail, delay)
  local element = element_of(tid, tail)
  call('ZADD', T .. ':z', exactly + delay, 'd' .. element)
  count('d', queue_of(tail), 1)
  set_phase(rid_of(tid), STEP0, 'D', 1, 0, element)
end

local function ready_element(tid, tail)
  if not Lease.is_lean(tid, tail) then return element_of(tid, tail) end
  return span_element(sub(tid, 1, 18), (sunpack('>I4', tid, 20)), 1, tail)
end

-- Puts the first task where it belongs.
local function place_task(element, extras, group, run, may_keep)
  local tid, tail = split_element(element)
  local delay = 0
  if extras then tail, delay = apply_extras(rid_of(tid), tail, extras) end
  if delay > 0 then
    delay_task(tid, tail, delay)
  elseif may_keep and #kept < 2 * keep and is_idle(queue_of(tail)) then
    if band(byte(tail, 1), QUEUE_TIMED) ~= 0 then
      call('ZREM', T .. ':z', 'q' .. rid_of(tid))
      tail = char(byte(tail, 1) - QUEUE_TIMED) .. sub(tail, 2)
    end
    keep_task(tid, tail, group, run)
  else
    make_ready(tail, ready_element(tid, tail))
  end
end

local function start_root(element, rest, extras, group, run, found)
  local rid, field = rid_of((split_element(element))), extras and sub(extras, 35) or ''
  local record = T .. ':r:' .. rid
  local stored = call('EXISTS', record) == 1 and rid or (field ~= '' and call('HGET', T .. ':d', field))
  if stored then
    if not kept_before(stored, group, run) then
      found[#found + 1] = run
      found[#found + 1] = stored
      found[#found + 1] = without_input(call('HGET', T .. ':r:' .. stored, 's'))
    end
    return
  end
  local tail = select(2, split_element(element))
  if extras then
    Touch.run(rid)
    tail = char(byte(tail, 1) - SPECIAL) .. sub(tail, 2)
  end
  Touch.queue(tail)
  local _, _, _, workflow = sunpack('>BBc0I4Hc0', rest)
  call('HSET', record, 's', new_head .. rest, 'L', 1, 'w', workflow)
  if field ~= '' then
    call('HSET', record, 'd', field)
    call('HSET', T .. ':d', field, rid)
  end
  new_roots[#new_roots + 1] = rid
  place_task(element, extras, group, run, true)
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
  new_roots = {}
end

-- The chunks of a journal's indexed children. What is behind the end of a chunk is gathered and appended at once.
local function open_chunks(J)
  local chunks = { number = nil, list = nil, results = nil, stored = 0, length = 0, added = {} }

  function chunks.write()
    local n = chunks.length - chunks.stored
    if n == 0 then return end
    if chunks.stored == 0 then call('RPUSH', T .. ':b:' .. J, spack('>I4', chunks.number)) end
    call('RPUSH', chunks.list, unpack(chunks.added, 1, n))
    chunks.stored, chunks.added = chunks.length, {}
  end

  function chunks.go_to(number)
    if number == chunks.number then return end
    chunks.write()
    local name = J .. spack('>I4', number)
    chunks.number, chunks.list, chunks.results = number, T .. ':c:' .. name, T .. ':C:' .. name
    Touch.list(':b:', J)
    chunks.stored = call('LLEN', chunks.list)
    chunks.length = chunks.stored
  end

  -- Appends entries from the arguments.
  function chunks.append_span(i, number)
    local added, n = chunks.added, chunks.length - chunks.stored - i + 1
    for at = i, i + number - 1 do added[n + at] = new_head .. ARGV[at] end
    chunks.length = chunks.length + number
  end

  function chunks.append(at, entry)
    local added, n = chunks.added, chunks.length - chunks.stored
    while chunks.stored + n < at do
      n = n + 1
      added[n] = ''
    end
    added[n + 1] = entry
    chunks.length = at + 1
  end

  return chunks
end

-- Children whose keys were never used in this journal, gathered and appended at once.
local function open_order(J)
  local order = { first = nil, entries = {}, places = {}, gathered = {} }
  local journal = T .. ':j:' .. J

  function order.write()
    local n = #order.entries
    if n == 0 then return end
    local from = 1
    while from <= n do
      local chunk, at = chunk_of(J, order.first + from - 1)
      local upto = math.min(n, from + 63 - at)
      call('RPUSH', T .. ':e:' .. chunk, unpack(order.entries, from, upto))
      from = upto + 1
    end
    in_pieces('HSET', T .. ':x:' .. J, order.places)
    for i = 1, 2 * n, 2 do Places.note(J, order.places[i], order.places[i + 1]) end
    call('HSET', journal, 'k', order.first + n)
    order.first, order.entries, order.places, order.gathered = nil, {}, {}, {}
  end

  function order.append(slot, entry)
    local n = #order.entries
    if not order.first then order.first = tonumber(call('HGET', journal, 'k') or 0) end
    local chunk, at = chunk_of(J, order.first + n)
    if n == 0 or at == 0 then Touch.list(':e:', chunk) end
    order.entries[n + 1] = slot .. entry
    order.places[2 * n + 1], order.places[2 * n + 2] = slot, order.first + n
    order.gathered[slot] = true
  end

  return order
end

local function start_children(J, first, last, group, may_keep)
  local found, created, new = {}, 0, 0
  local chunks, order = open_chunks(J), open_order(J)

  -- A child in a slot that was used: it may follow the generation that is there.
  local function start_again(element, entry, stored, slot, list, results, at, extras, run, kept_slot)
    local rid = rid_of((split_element(element)))
    local before, generation = (sunpack('>I4', stored)), generation_of(rid)
    local result = generation == before + 1 and call('HGET', results, at)
    if result then
      keep_replaced(J, slot, stored, result)
      call('HDEL', results, at)
      call('LSET', list, at, kept_slot .. entry)
      created = created + 1
      return place_task(element, extras, group, run, may_keep)
    end
    if generation == before and kept_before(rid, group, run) then return end
    found[#found + 1] = run
    found[#found + 1] = child_rid(J, slot, before)
    found[#found + 1] = without_input(stored)
  end

  settle = function()
    chunks.write()
    order.write()
    if created == 0 then return end
    local journal = T .. ':j:' .. J
    local stored = call('HMGET', journal, 'n', 'u', 'R')
    call('HSET', journal, 'n', tonumber(stored[1] or 0) + new, 'u', tonumber(stored[2] or 0) + created)
    call('HINCRBY', T .. ':r:' .. stored[3], 'L', created)
    created, new = 0, 0
  end

  -- Looks at what the first task of a child needs, before the child is written.
  local function touch_task(tid, tail, extras)
    Touch.queue(tail)
    if extras then Touch.run(rid_of(tid)) end
  end

  local function create(element, extras, run)
    created, new = created + 1, new + 1
    place_task(element, extras, group, run, may_keep)
  end

  local function start_indexed(element, entry, extras, run)
    local a, b, c, d = byte(element, 21, 24)
    local number = ((a * 256 + b) * 256 + c) * 256 + d
    chunks.go_to(floor(number / 64))
    local at = number % 64
    if at >= chunks.length then
      chunks.append(at, entry)
      return create(element, extras, run)
    end
    chunks.write()
    local stored = call('LINDEX', chunks.list, at)
    if stored ~= '' then
      local slot = sub(element, 20, 24)
      return start_again(element, entry, stored, slot, chunks.list, chunks.results, at, extras, run, '')
    end
    call('LSET', chunks.list, at, entry)
    create(element, extras, run)
  end

  local function start_keyed(element, entry, extras, run)
    local slot = sub(element, 20, 36)
    if order.gathered[slot] then order.write() end
    local list, results, at = place_of_slot(J, slot)
    if list then
      return start_again(element, entry, read_child(list, at, slot), slot, list, results, at, extras, run, slot)
    end
    order.append(slot, entry)
    create(element, extras, run)
  end

  -- Looks up the places of all keys at once.
  local function look_up_keys()
    local slots, at = {}, first
    while at <= last do
      local element = ARGV[at]
      local n = byte(element, 1)
      if n == 0 then
        at = at + 1 + byte(element, 2)
      else
        if byte(element, 20) == 107 then slots[#slots + 1] = sub(element, 20, 36) end
        at = at + (byte(element, n + 2) >= SPECIAL and 3 or 2)
      end
    end
    Places.look_up(J, slots)
  end

  local i, run = first, 0

  -- Neighbours in one chunk. What is behind its end is created as a whole.
  local function start_span(element, first_index, number, tail)
    local chunk, at = floor(first_index / 64), first_index % 64
    chunks.go_to(chunk)
    Touch.queue(tail)
    if at == chunks.length and not (may_keep and #kept < 2 * keep) then
      chunks.append_span(i, number)
      created, new = created + number, new + number
      make_ready(tail, element, number)
    else
      for n = 0, number - 1 do
        local tid = J .. 'i' .. spack('>I4', first_index + n) .. STEP0
        start_indexed(element_of(tid, tail), new_head .. ARGV[i + n], nil, run + n + 1)
      end
    end
    i, run = i + number, run + number
  end

  local function start_one(element)
    local rest, extras, n = ARGV[i], nil, byte(element, 1)
    i, run = i + 1, run + 1
    if byte(element, n + 2) >= SPECIAL then
      extras = ARGV[i]
      i = i + 1
    end
    local entry = spack('>I4I6', generation_of(sub(element, 2, n - 1)), now) .. rest
    local tid, tail = split_element(element)
    if extras then tail = char(byte(tail, 1) - SPECIAL) .. sub(tail, 2) end
    touch_task(tid, tail, extras)
    if byte(element, 20) == 105 then
      start_indexed(element, entry, extras, run)
    else
      start_keyed(element, entry, extras, run)
    end
  end

  look_up_keys()
  while i <= last do
    local element = ARGV[i]
    i = i + 1
    local J_of_span, first_index, number, tail = split_span(element)
    if J_of_span then
      start_span(element, first_index, number, tail)
    else
      start_one(element)
    end
  end
  settle()
  return found
end

local function start_roots(first, last, group)
  local found, i, run = {}, first, 0
  while i <= last do
    run = run + 1
    local element, rest, extras = ARGV[i], ARGV[i + 1], nil
    i = i + 2
    if byte(element, byte(element, 1) + 2) >= SPECIAL then
      extras = ARGV[i]
      i = i + 1
    end
    start_root(element, rest, extras, group, run, found)
  end
  return found
end

-- Makes sure that the lease is held and the journal is there: its name, or nil and the refusal; and whether tasks of
-- its children may be leased now, which they may not while an ancestor's end is about to cancel them.
local function parent_of(packed)
  local tid, token, uid = sunpack('>Bc0c12c16', packed)
  local rid = rid_of(tid)
  local held = Lease.held(leases_key, tid)
  if not held or token_of(held) ~= token then return nil, refusal(rid) end
  local flags = flags_of(held)
  local may_keep = keep == 0 or not doom_of(rid, band(flags, DETACHED) ~= 0)
  if band(flags, JOURNALED) ~= 0 then return uid .. sub(tid, -2), nil, may_keep end
  local J = open_journal(rid, uid, sub(tid, -2), session)
  Lease.put(leases_key, tid, with_flags(held, bor(RECORD, JOURNALED)))
  return J, nil, may_keep
end

conclude_call = function()
  settle()
  list_roots()
  Lease.flush(leases_key, lease_head)
  flush_all()
end
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
conclude_call()
return { now, groups, kept }
