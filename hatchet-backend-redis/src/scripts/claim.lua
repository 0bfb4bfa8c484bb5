--! allow-oom
-- Leases ready tasks.
-- ARGV: session, 12 bytes of a new token, 1 if this repeats a call whose reply was lost, retention in ms, bytes of
-- entries after which no more are read, then for each queue: name, number wanted
-- Reply: now, a character for each queue: '.', or '+' if more might be had that was too much for this call; then for
-- each element: element, entry of its task (without input unless it is the first task); or of a span the segment of its
-- tasks (see chunk.lua).
local session, nonce, room, leases_key, reply, replied
-- The counter of what is claimed: 'r', or 's' of stalled tasks.
local counter
-- What the session announced; how many elements may still be passed by.
local kind, patience
local MOST_PASSED = 1000

local function add(part)
  replied = replied + 1
  reply[replied] = part
end

-- What the lost reply of this very call gave.
local function give_again()
  Lease.each_given(leases_key, nonce, function(tid, held)
    local tail, entry = tail_of(held), entry_of(rid_of(tid))
    add(element_of(tid, tail))
    add(band(byte(tail, 1), FIRST) ~= 0 and entry or without_input(entry))
  end)
  return replied > 2
end

-- The workflow in what is stored of a run, if it is not one of the session's or paused.
local function foreign_at(packed, at)
  if kind.any and not Pauses.workflows then return nil end
  local workflow = Announced.workflow_at(packed, at)
  if Pauses.has_workflow(workflow) then return workflow end
  return not kind.any and not kind.workflows[workflow] and workflow or nil
end

-- Takes a task about which more may be known than its entry, unless its run has ended; whether it was leased, and if it is
-- another's its workflow.
local function take(queue, tid, tail, has_garbage)
  local rid, flags = rid_of(tid), byte(tail, 1)
  local entry = entry_of(rid)
  if not entry and not has_garbage then error('it is of a run that is not there') end
  local doom = entry and Run.doom_of(rid, band(flags, DETACHED) ~= 0)
  if not entry or ((has_garbage or doom) and result_of(rid) ~= false) then
    count('g', queue, -1)
    return false
  end
  room = room - #entry
  if doom then
    Run.end_run(rid, 'c' .. doom, tid)
    count(counter, queue, -1)
    return false
  end
  local head, after = sunpack('>I4', entry, 13 + byte(entry, 12))
  if head > #entry - after + 1 then error('the entry of its run is cut short') end
  local foreign = foreign_at(entry, Announced.IN_ENTRY)
  if foreign then return false, foreign end
  local journal = band(flags, JOURNALED) ~= 0 and journal_of(rid, sub(tid, -2))
  if journal == nil then error('the record of its run is not there') end
  if journal then call('HSET', T .. ':j:' .. journal, 's', session) end
  count(counter, queue, -1)
  if counter == 's' then
    local task = read_tail(tail)
    set_phase(rid, sub(tid, -2), 'R', task.attempt, task.recoveries)
  end
  if band(flags, QUEUE_TIMED) ~= 0 then
    call('ZREM', T .. ':z', 'q' .. rid)
    tail = char(flags - QUEUE_TIMED) .. sub(tail, 2)
  end
  Lease.add(tid, tail)
  add(element_of(tid, tail))
  add(band(flags, FIRST) ~= 0 and entry or without_input(entry))
  return true
end

-- What cannot be taken is set aside, or comes back later as if it had been delayed.
local function leave(queue, element, number, why)
  local is_refusal = Damage.is_refusal(why)
  count(counter, queue, -number)
  if is_refusal then
    call('ZADD', T .. ':z', exactly + Damage.RETRY_MS, 'd' .. element)
    count('d', queue, number)
    Damage.pass_over(T .. ':q:' .. queue, element, why)
  else
    Damage.set_aside(T .. ':q:' .. queue, element, why)
  end
end

-- The same as take for one of neighbours, where something may be wrong with it.
local function try_take(queue, tid, tail, has_garbage)
  local fine, taken, foreign = pcall(take, queue, tid, tail, has_garbage)
  if fine then return taken, foreign end
  leave(queue, element_of(tid, tail), 1, taken)
  return false
end

-- Takes the first tasks of a span, all of which go on: whether they are there and were taken, and if they are another's
-- their workflow.
local function take_neighbours(queue, J, first, number, tail)
  local chunk, at = chunk_of(J, first)
  local segment = Segment.read(T .. ':c:' .. chunk, at, number)
  if not segment then return false end
  local foreign = foreign_at(segment, Announced.IN_SEGMENT)
  if foreign then return false, foreign end
  add(span_element(J, first, number, tail))
  add(segment)
  room = room - #segment
  Lease.add_places(chunk, sub(PLACES, at + 1, at + number), tail)
  count('r', queue, -number)
  return true
end

-- Takes tasks of one element; how many were leased, how many were looked at, what is left of it, and if that is another's
-- its workflow.
local function take_from(queue, element, wanted, has_garbage, simple)
  local J, first, number, tail = split_span(element)
  if not J then
    local tid
    tid, tail = Damage.checked_element(element)
    local taken, foreign = take(queue, tid, tail, has_garbage)
    if foreign then return 0, 0, element, foreign end
    return taken and 1 or 0, 1, nil
  end
  if number < 1 or first % 64 + number > 64 then error('it names no neighbours') end
  local got, looked, foreign = 0, 0, nil
  if simple then
    local fine, taken
    fine, taken, foreign = pcall(take_neighbours, queue, J, first, math.min(number, wanted), tail)
    if foreign then return 0, 0, element, foreign end
    if fine and taken then
      got = math.min(number, wanted)
      looked = got
    end
  end
  while got < wanted and looked < number and room > 0 and not foreign do
    local taken
    taken, foreign = try_take(queue, J .. 'i' .. spack('>I4', first + looked) .. STEP0, tail, has_garbage)
    if taken then got = got + 1 end
    if not foreign then looked = looked + 1 end
  end
  return got, looked, looked < number and span_element(J, first + looked, number - looked, tail) or nil, foreign
end

local function look_up_places(elements)
  local tids = {}
  for _, element in ipairs(elements) do
    if (byte(element, 1) or 0) > 0 then tids[#tids + 1] = (split_element(element)) end
  end
  Places.look_up_tasks(tids)
end

-- Takes tasks of ended runs from the beginning of a list of what was set aside, as far as `number` elements: nobody may
-- come for it for long.
local function drop_ended(key, queue, workflow, number)
  local dropped, tasks = 0, 0
  for _, stored in ipairs(call('LRANGE', key, 0, number - 1)) do
    local element, is_over = sub(stored, 7), true
    local fine = pcall(each_task, element, function(tid) is_over = is_over and result_of(rid_of(tid)) ~= false end)
    if not fine or not is_over then break end
    dropped, tasks = dropped + 1, tasks + Aside.tasks_in(element)
  end
  if dropped == 0 then return end
  call('LTRIM', key, dropped, -1)
  Aside.count(queue, workflow, -tasks)
  count('g', queue, -tasks)
end

-- Elements of a list that are others', by workflow.
local function open_asides(class, queue)
  return { class = class, queue = queue, n = 0, lists = {}, order = {} }
end

-- Notes an element that is to be set aside; the error if another program's key is there.
local function note_aside(asides, element, workflow)
  local list = asides.lists[workflow]
  if not list then
    list = { key = Aside.list(asides.class, asides.queue, workflow), workflow = workflow, elements = {}, tasks = 0 }
    for _, found in ipairs({ redis.pcall('LLEN', list.key), redis.pcall('HLEN', Aside.index(asides.queue)) }) do
      if type(found) == 'table' then return found end
    end
    asides.lists[workflow], asides.order[#asides.order + 1] = list, list
  end
  asides.n = asides.n + 1
  list.elements[#list.elements + 1] = { number = asides.n, element = element }
  list.tasks = list.tasks + Aside.tasks_in(element)
end

local function write_asides(asides, has_garbage)
  if asides.n == 0 then return end
  local before = call('HINCRBY', T, 'aside', asides.n) - asides.n
  for _, list in ipairs(asides.order) do
    local stored = {}
    for i, aside in ipairs(list.elements) do stored[i] = spack('>I6', before + aside.number) .. aside.element end
    in_pieces('RPUSH', list.key, stored)
    Aside.count(asides.queue, list.workflow, list.tasks)
    if has_garbage then drop_ended(list.key, asides.queue, list.workflow, 2 * #stored) end
  end
end

-- How many tasks of a list were leased. Its elements are looked at before they are removed. `lane`: if it is one of what
-- was set aside, its workflow and the number behind which nothing is taken.
local function claim_from_list(key, class, queue, wanted, has_garbage, simple, lane)
  local asides, blocked, taken = open_asides(class, queue), nil, 0
  local got, used, rest, look = 0, 0, nil, 1
  local head = lane and 6 or 0
  while got < wanted and room > 0 and patience > 0 and not rest and not blocked do
    local upto = used + math.min(look, wanted - got + asides.n) - 1
    local stored, elements = call('LRANGE', key, TEXT[used] or used, TEXT[upto] or upto), nil
    if #stored == 0 then break end
    if lane then
      elements = {}
      for i, one in ipairs(stored) do
        if lane.bound and #one >= 6 and sunpack('>I6', one) > lane.bound then break end
        elements[i] = sub(one, 7)
      end
      if #elements == 0 then break end
    else
      elements = stored
    end
    look_up_places(elements)
    for i, element in ipairs(elements) do
      if got == wanted or room <= 0 or patience <= 0 or rest then break end
      local fine, some, looked, left, foreign =
        pcall(take_from, queue, element, wanted - got, has_garbage, simple)
      if not fine then
        leave(queue, element, 1, some)
        some, looked, left, foreign = 0, 1, nil, nil
      end
      got, taken, rest = got + some, taken + looked, left
      if foreign then
        patience, blocked = patience - 1, note_aside(asides, rest, foreign)
        if blocked then break end
        taken, rest = taken + Aside.tasks_in(rest), nil
      end
      if rest then rest = sub(stored[i], 1, head) .. rest else used = used + 1 end
    end
    -- It may be of spans or of single tasks.
    look = math.min(2 * look, 64)
  end
  write_asides(asides, has_garbage)
  if used > 0 then call('LTRIM', key, TEXT[used] or used, '-1') end
  if rest then call('LSET', key, '0', rest) end
  if lane then Aside.count(queue, lane.workflow, -taken) end
  if blocked then error(blocked) end
  return got
end

-- The same for what was set aside of these workflows.
local function claim_from_lanes(workflows, class, queue, wanted, has_garbage, simple)
  local got = 0
  while got < wanted and room > 0 and patience > 0 do
    local first, lane, key = nil, nil, nil
    for _, workflow in ipairs(workflows) do
      local list = Aside.list(class, queue, workflow)
      local head = call('LINDEX', list, 0)
      -- What has no number is set aside first.
      local number = head and (#head >= 6 and sunpack('>I6', head) or 0)
      if number and (not first or number < first) then
        first, lane, key = number, { workflow = workflow, bound = first }, list
      elseif number and (not lane.bound or number < lane.bound) then
        lane.bound = number
      end
    end
    if not first then break end
    counter = Aside.is_stalled(lane.workflow) and 's' or 'r'
    got = got + claim_from_list(key, class, queue, wanted - got, has_garbage, simple, lane)
    counter = 'r'
  end
  return got
end

-- Takes tasks of ended runs from the beginning of a list.
local function drop_leftovers(list, queue)
  while patience > 0 do
    local element, is_over = call('LINDEX', list, 0), true
    local fine = element and pcall(each_task, element, function(tid)
      is_over = is_over and result_of(rid_of(tid)) ~= false
    end)
    if not fine or not is_over then return end
    call('LPOP', list)
    count('g', queue, -Aside.tasks_in(element))
    patience = patience - 1
  end
end

-- The same for the first of the large fan-outs of a workflow, whose turn is over then. Gives back too whether any are left.
local function claim_from_fan_out(workflow, class, queue, wanted, has_garbage, simple)
  local rotation = FanOut.rotation(class, queue, workflow)
  local J, got = call('LINDEX', rotation, 0), 0
  if not J then return 0, false end
  local list = FanOut.list(class, queue, J, workflow)
  got = claim_from_list(list, class, queue, wanted, has_garbage, simple)
  call('LPOP', rotation)
  if has_garbage then drop_leftovers(list, queue) end
  if call('EXISTS', list) == 1 then
    call('RPUSH', rotation, J)
    return got, true
  end
  return got, call('EXISTS', rotation) == 1
end

-- The same for a large fan-out that takes turns with no other.
local function claim_from_one(J, workflow, class, queue, wanted, has_garbage, simple)
  local list = FanOut.list(class, queue, J, workflow)
  local got = claim_from_list(list, class, queue, wanted, has_garbage, simple)
  if has_garbage then drop_leftovers(list, queue) end
  if call('EXISTS', list) == 0 then
    call('LPOP', FanOut.rotation(class, queue, workflow))
    call('LREM', FanOut.workflows(class, queue), 1, workflow)
  end
  return got
end

-- The same for the large fan-outs of a class, of these workflows.
local function claim_from_fan_outs(workflows, class, queue, wanted, has_garbage, simple)
  local names, open, got = FanOut.workflows(class, queue), FanOut.open_to(kind, workflows), 0
  if #open == 1 then
    local first = call('LRANGE', FanOut.rotation(class, queue, open[1]), 0, 1)
    if #first == 1 then return claim_from_one(first[1], open[1], class, queue, wanted, has_garbage, simple) end
  end
  local turn = math.max(1, floor(wanted / 4))
  while #open > 0 and got < wanted and room > 0 and patience > 0 do
    local workflow = table.remove(open, 1)
    local some, is_left =
      claim_from_fan_out(workflow, class, queue, math.min(turn, wanted - got), has_garbage, simple)
    got = got + some
    call('LREM', names, 1, workflow)
    if is_left then
      open[#open + 1] = workflow
      call('RPUSH', names, workflow)
    end
  end
  return got
end

-- The same for what is in a class, some of which takes turns.
local function claim_by_turns(key, class, queue, wanted, has_garbage, simple)
  local workflows = call('LRANGE', FanOut.workflows(class, queue), 0, -1)
  if #workflows == 0 then return claim_from_list(key, class, queue, wanted, has_garbage, simple) end
  local share = floor(wanted / 2)
  if wanted % 2 == 1 and call('HINCRBY', T, 'turn' .. class .. queue, 1) % 2 == 0 then share = share + 1 end
  local got, is_more = 0, false
  if key then
    got = claim_from_list(key, class, queue, share, has_garbage, simple)
    is_more = got == share
  end
  got = got + claim_from_fan_outs(workflows, class, queue, wanted - got, has_garbage, simple)
  if is_more and got < wanted and room > 0 and patience > 0 then
    got = got + claim_from_list(key, class, queue, wanted - got, has_garbage, simple)
  end
  return got
end

-- How many tasks of a queue were leased.
local function claim_from(queue, wanted)
  if wanted == 0 then return 0 end
  local has_garbage = (call('HGET', T .. ':n', 'g' .. queue) or '0') ~= '0'
  local simple = not has_garbage and call('EXISTS', T .. ':k') == 0
  local keys, got, lanes = list_keys(queue), 0, nil
  local urgent, normal, low = FanOut.workflows('3', queue), FanOut.workflows('4', queue), FanOut.workflows('5', queue)
  local aside = Aside.index(queue)
  -- Mostly there is neither what was resumed nor what is urgent, nor what was set aside, nor a large fan-out.
  local class, by_turns = 5, call('EXISTS', keys[1], keys[2], keys[3], keys[4], aside, urgent, normal, low) > 0
  if by_turns then
    -- Often there is a large fan-out and nothing else.
    local others = call('EXISTS', keys[1], keys[2], keys[3], keys[4], keys[5], keys[6], aside, urgent, low)
    if others == 0 then
      local got = claim_by_turns(nil, '4', queue, wanted, has_garbage, simple)
      count('l', queue, got)
      return got
    end
    class = 1
  end
  if class == 1 then lanes = Aside.open_to(kind, queue) end
  while class <= 6 and got < wanted and room > 0 and patience > 0 do
    local name = TEXT[class - 1]
    if lanes and #lanes > 0 then
      got = got + claim_from_lanes(lanes, name, queue, wanted - got, has_garbage, simple)
    end
    if got < wanted and room > 0 and patience > 0 then
      local claim_class = by_turns and class >= 4 and claim_by_turns or claim_from_list
      got = got + claim_class(keys[class], name, queue, wanted - got, has_garbage, simple)
    end
    class = class + 1
  end
  count('l', queue, got)
  return got
end

-- Claims from a queue; a character that says whether more might be had.
local function serve(queue, wanted)
  local waiting = T .. ':y:' .. queue
  local got = Pauses.has_queue(queue) and 0 or claim_from(queue, wanted)
  if got == wanted then
    call('ZREM', waiting, session)
    -- Who wants nothing may have been told of what another one has room for.
    if wanted == 0 then Wake.again(queue, 1) end
  elseif room > 0 and patience > 0 then
    call('ZADD', waiting, 'NX', now, session)
  end
  return got < wanted and (room <= 0 or patience <= 0) and '+' or '.'
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
  kind, patience, counter = Announced.of(session), MOST_PASSED, 'r'
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
