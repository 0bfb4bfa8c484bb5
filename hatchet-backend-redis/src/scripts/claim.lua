--! allow-oom
-- Leases ready tasks.
-- ARGV: session, 12 bytes of a new token, 1 if this repeats a call whose reply was lost, retention in ms, bytes of
-- entries after which no more are read, then for each queue: name, number wanted
-- Reply: now, a character for each queue: '.', or '+' if more might be had that was too large for this call; then for
-- each element: element, entry of its task (without input unless it is the first task); or of a span the segment of its
-- tasks (see chunk.lua).
local session, nonce, room, leases_key, reply, replied

local function add(part)
  replied = replied + 1
  reply[replied] = part
end

-- What the lost reply of this very call gave.
local function give_again()
  local cursor, given = '0', {}
  repeat
    local page = call('HSCAN', leases_key, cursor, 'COUNT', 500)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      Lease.each(page[2][i], page[2][i + 1], function(tid, held)
        if token_of(held) ~= nonce or given[tid] then return end
        given[tid] = true
        local tail = tail_of(held)
        local entry = entry_of(rid_of(tid))
        add(element_of(tid, tail))
        add(band(byte(tail, 1), FIRST) ~= 0 and entry or without_input(entry))
      end)
    end
  until cursor == '0'
  return replied > 2
end

-- Takes a task about which more may be known than its entry, unless its run has ended; whether it was leased.
local function take(queue, tid, tail, has_garbage)
  local rid, flags = rid_of(tid), byte(tail, 1)
  local entry = entry_of(rid)
  local doom = entry and doom_of(rid, band(flags, DETACHED) ~= 0)
  if not entry or ((has_garbage or doom) and result_of(rid) ~= false) then
    count('g', queue, -1)
    return false
  end
  count('r', queue, -1)
  room = room - #entry
  if doom then
    end_run(rid, 'c' .. doom, tid)
    return false
  end
  if band(flags, QUEUE_TIMED) ~= 0 then
    call('ZREM', T .. ':z', 'q' .. rid)
    tail = char(flags - QUEUE_TIMED) .. sub(tail, 2)
  end
  if band(flags, JOURNALED) ~= 0 then call('HSET', T .. ':j:' .. journal_of(rid, sub(tid, -2)), 's', session) end
  Lease.add(tid, tail)
  add(element_of(tid, tail))
  add(band(flags, FIRST) ~= 0 and entry or without_input(entry))
  return true
end

-- Takes the first tasks of a span, all of which go on.
local function take_neighbours(queue, J, first, number, tail)
  local chunk, at = chunk_of(J, first)
  add(span_element(J, first, number, tail))
  local segment = Segment.read(T .. ':c:' .. chunk, at, number)
  add(segment)
  room = room - #segment
  Lease.add_places(chunk, sub(PLACES, at + 1, at + number), tail)
  count('r', queue, -number)
end

-- Takes tasks of one element; how many were leased, and what is left of it.
local function take_from(queue, element, wanted, has_garbage, simple)
  local J, first, number, tail = split_span(element)
  if not J then
    local tid
    tid, tail = split_element(element)
    return take(queue, tid, tail, has_garbage) and 1 or 0, nil
  end
  local got, looked = 0, 0
  if simple then
    got = math.min(number, wanted)
    looked = got
    take_neighbours(queue, J, first, got, tail)
  end
  while got < wanted and looked < number and room > 0 do
    if take(queue, J .. 'i' .. spack('>I4', first + looked) .. STEP0, tail, has_garbage) then got = got + 1 end
    looked = looked + 1
  end
  return got, looked < number and span_element(J, first + looked, number - looked, tail) or nil
end

local function look_up_places(elements)
  local tids = {}
  for _, element in ipairs(elements) do
    if byte(element, 1) > 0 then tids[#tids + 1] = (split_element(element)) end
  end
  Places.look_up_tasks(tids)
end

-- How many tasks of a list were leased. Its elements are looked at before they are removed.
local function claim_from_list(key, queue, wanted, has_garbage, simple)
  local got, used, rest, look = 0, 0, nil, 1
  while got < wanted and room > 0 and not rest do
    local upto = used + math.min(look, wanted - got) - 1
    local elements = call('LRANGE', key, TEXT[used] or used, TEXT[upto] or upto)
    if #elements == 0 then break end
    look_up_places(elements)
    for _, element in ipairs(elements) do
      if got == wanted or room <= 0 or rest then break end
      local some
      some, rest = take_from(queue, element, wanted - got, has_garbage, simple)
      got = got + some
      if not rest then used = used + 1 end
    end
    -- It may be of spans or of single tasks.
    look = math.min(2 * look, 64)
  end
  if used > 0 then call('LTRIM', key, TEXT[used] or used, '-1') end
  if rest then call('LSET', key, '0', rest) end
  return got
end

-- How many tasks of a queue were leased.
local function claim_from(queue, wanted)
  if wanted == 0 then return 0 end
  local has_garbage = (call('HGET', T .. ':n', 'g' .. queue) or '0') ~= '0'
  local simple = not has_garbage and call('EXISTS', T .. ':k') == 0
  local keys, got = list_keys(queue), 0
  -- Mostly there is neither what was resumed nor what is urgent.
  local class = call('EXISTS', keys[1], keys[2], keys[3], keys[4]) == 0 and 5 or 1
  while class <= 6 and got < wanted and room > 0 do
    got = got + claim_from_list(keys[class], queue, wanted - got, has_garbage, simple)
    class = class + 1
  end
  count('l', queue, got)
  return got
end

-- Claims from a queue; a character that says whether more might be had.
local function serve(queue, wanted)
  local hungry = T .. ':y:' .. queue
  local got = claim_from(queue, wanted)
  if got == wanted then
    call('ZREM', hungry, session)
    -- Who wants nothing may have been told of what another one has room for.
    if wanted == 0 and tonumber(call('HGET', T .. ':n', 'r' .. queue) or 0) > 0 then wake_hungry(queue, 1) end
  elseif room > 0 then
    call('ZADD', hungry, 'NX', now, session)
  end
  return got < wanted and room <= 0 and '+' or '.'
end

-- Writes what was gathered.
local function write_gathered()
  Lease.flush(leases_key, nonce .. now6)
  flush_all()
end

local function command()
  session, nonce = ARGV[1], ARGV[2]
  retention = tonumber(ARGV[4])
  if not alive(session) then return session_lost() end
  room, leases_key = tonumber(ARGV[5]), T .. ':l:' .. session
  reply, replied, conclude_call = { now, '' }, 2, write_gathered
  for i = 6, #ARGV, 2 do call('ZCARD', T .. ':y:' .. ARGV[i]) end
  if ARGV[3] == '1' and give_again() then
    reply[2] = string.rep('.', (#ARGV - 5) / 2)
    return reply
  end
  for i = 6, #ARGV, 2 do reply[2] = reply[2] .. serve(ARGV[i], tonumber(ARGV[i + 1])) end
  write_gathered()
  return reply
end
