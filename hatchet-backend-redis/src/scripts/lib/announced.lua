-- What sessions announce, and what follows from it: whom a task is given to, and who is told of it.
--
--   T:h:session   w: its workflows, u: its queues; of each name its length (2) and itself
--   T:A:queue     hash: lane -> number of its tasks. A lane is a workflow, of whose tasks some were set aside; or that and, each
--                 behind a 0, names: of stalled tasks, which go to nobody who announced one of the names.
--   T:B:class:queue length (1) queue lane   list: elements of a queue's list that were set aside since those who came
--                 across them cannot run them: number (6), by which lists of one class are in one order, then the element.
--                 What was set aside was in front of all that is left in the list that it came from. The number of a stalled task is 0.
--   T:P           hash: 'q' and a queue, or 'w' and a workflow -> since when it is paused, in ms. It is there while something is
--                 paused. Tasks of a paused workflow are set aside like those that a session cannot run.
--   T:t:run       s and a step: why that is stalled, or was until it goes elsewhere: length (2) lane, length (2) what stands in
--                 the lane, the reason

do
  -- A session announces the same as long as it lives, so it is read once. Sessions that announce the same share it. By
  -- tag: what sessions announced, and of those that can run anything how many announced the same.
  local seen, shared = {}, {}
  local MOST_SEEN = 10000
  local EVERYTHING = { any = true, workflows = {}, queues = {} }

  local function seen_here()
    local here = seen[T]
    if not here or here.count >= MOST_SEEN then
      here = { of = {}, kinds = {}, count = 0 }
      seen[T] = here
    end
    return here
  end

  local function read_names(packed)
    local names, at, name = {}, 1, nil
    while at <= #packed do
      name, at = sunpack('>Hc0', packed, at)
      names[name] = true
    end
    return names
  end

  local function remember(session, workflows, queues)
    local text = spack('>I4', #workflows) .. workflows .. queues
    local kind = shared[text]
    if not kind then
      kind = { workflows = read_names(workflows), queues = read_names(queues) }
      shared[text] = kind
    end
    local here = seen_here()
    here.of[session], here.count = kind, here.count + 1
    if workflows ~= '' then here.kinds[kind] = (here.kinds[kind] or 0) + 1 end
    return kind
  end

  function Announced.pack(names)
    local parts = {}
    for i, name in ipairs(names) do parts[i] = spack('>Hc0', #name, name) end
    return table.concat(parts)
  end

  -- What a session announced; everything where it did not say.
  function Announced.of(session)
    local kind = seen_here().of[session]
    if kind then return kind end
    local stored = call('HMGET', T .. ':h:' .. session, 'w', 'u')
    if not stored[1] then return EVERYTHING end
    return remember(session, stored[1], stored[2])
  end

  function Announced.forget(session)
    local here = seen_here()
    local kind = here.of[session]
    if not kind then return end
    here.of[session], here.count = nil, here.count - 1
    local same = here.kinds[kind] or 0
    here.kinds[kind] = same > 1 and same - 1 or nil
  end

  -- Whether all sessions that were seen here and can run anything announced the same.
  function Announced.is_uniform()
    local kinds = seen_here().kinds
    local first = next(kinds)
    return not first or next(kinds, first) == nil
  end
end

function Pauses.key()
  return T .. ':P'
end

-- Reads what is paused into `queues` and `workflows`, which are nil if nothing is. Gives back an error of the server.
function Pauses.read()
  local stored = redis.pcall('HGETALL', Pauses.key())
  if stored.err then return stored end
  local paused = { q = {}, w = {} }
  for i = 1, #stored, 2 do
    local of_kind = paused[sub(stored[i], 1, 1)]
    if of_kind then of_kind[sub(stored[i], 2)] = true end
  end
  Pauses.queues, Pauses.workflows = next(stored) and paused.q, next(paused.w) and paused.w
end

function Pauses.has_queue(queue)
  return Pauses.queues and Pauses.queues[queue]
end

-- Whether a workflow is paused, in its version or in all of them.
function Pauses.has_workflow(workflow)
  local paused = Pauses.workflows
  if not paused then return false end
  local unversioned, version = string.match(workflow, '^(.*)@%+?(%d+)$')
  version = tonumber(version or 0)
  return paused[workflow] or version > 0 and version < 4294967296 and paused[unversioned]
end

-- What the open sessions announce, each different set of names once.
function Announced.by_open_sessions()
  local kinds, is_known = {}, {}
  for _, session in ipairs(call('ZRANGE', T .. ':s', now, '+inf', 'BYSCORE')) do
    local kind = Announced.of(session)
    if not is_known[kind] then
      is_known[kind] = true
      kinds[#kinds + 1] = kind
    end
  end
  return kinds
end

function Announced.list(names)
  local list = {}
  for name in pairs(names) do list[#list + 1] = name end
  return list
end

-- Whether a session is given tasks of a workflow, as far as that does not depend on the queue.
function Announced.can_run(session, workflow)
  local kind = Announced.of(session)
  return (kind.any or kind.workflows[workflow] == true) and not Pauses.has_workflow(workflow)
end

-- Whether a task that a call of the session makes ready may be leased to it.
function Announced.may_keep(session, workflow, queue)
  return not Pauses.has_queue(queue) and Announced.can_run(session, workflow)
end

-- The workflow in what is stored of a run. `at` is where its priority stands.
function Announced.workflow_at(packed, at)
  at = at + 6 + byte(packed, at + 1)
  local length = byte(packed, at) * 256 + byte(packed, at + 1)
  return sub(packed, at + 2, at + 1 + length)
end

-- Where the priority stands in an entry, in a segment, and in what a request has of neighbours.
Announced.IN_ENTRY, Announced.IN_SEGMENT, Announced.IN_PACKED = 11, 15, 5

function Aside.index(queue)
  return T .. ':A:' .. queue
end

function Aside.list(class, queue, workflow)
  return T .. ':B:' .. class .. ':' .. BYTE[#queue] .. queue .. workflow
end

-- The workflows of which something was set aside in a queue and that a session of this kind can run.
function Aside.open_to(kind, queue)
  local open = {}
  for _, workflow in ipairs(call('HKEYS', Aside.index(queue))) do
    if Aside.is_open(kind, workflow) then open[#open + 1] = workflow end
  end
  return open
end

function Aside.is_stalled(lane)
  return string.find(lane, '\0', 1, true) ~= nil
end

-- Whether sessions of this kind are given what is in a lane.
function Aside.is_open(kind, lane)
  local at = string.find(lane, '\0', 1, true)
  local workflow = at and sub(lane, 1, at - 1) or lane
  if Pauses.has_workflow(workflow) then return false end
  if kind.any then return true end
  if not kind.workflows[workflow] then return false end
  for name in string.gmatch(at and sub(lane, at) or '', '%z([^%z]+)') do
    if kind.workflows[name] then return false end
  end
  return true
end

-- `by` more of a workflow's tasks are set aside.
function Aside.count(queue, workflow, by)
  if by ~= 0 and call('HINCRBY', Aside.index(queue), workflow, TEXT[by] or by) == 0 then
    call('HDEL', Aside.index(queue), workflow)
  end
end

do
  local MOST_NAMES = 16

  -- The lane of a task that is stalled once more, unless this was announced.
  local function lane_of(rid, step, unless)
    local before, names = call('HGET', T .. ':t:' .. rid, 's' .. step), {}
    if before then
      for name in string.gmatch((sunpack('>Hc0', before)), '%z([^%z]+)') do
        if name ~= unless then names[#names + 1] = name end
      end
    end
    names[#names + 1] = unless
    local workflow = Announced.workflow_at(entry_of(rid), Announced.IN_ENTRY)
    return workflow .. '\0' .. table.concat(names, '\0', math.max(1, #names - MOST_NAMES + 1))
  end

  -- Makes sure that a task can be stalled; its lane, and that lane's list.
  function Aside.touch(tid, task, unless)
    local lane = lane_of(rid_of(tid), sub(tid, -2), unless)
    local key = Aside.list(TEXT[class_of(RESUMED, task.prio)], task.queue, lane)
    Touch.hash(':t:', rid_of(tid))
    call('LLEN', key)
    call('HLEN', Aside.index(task.queue))
    return lane, key
  end

  -- Stalls a leased task.
  function Aside.stall(tid, held, unless, reason)
    local rid, step, task = rid_of(tid), sub(tid, -2), read_held(held)
    local lane, key = Aside.touch(tid, task, unless)
    local since = sunpack('>I6', held, 13)
    task.started = task.started > 0 and task.started or since
    task.claimed = task.claimed > 0 and task.claimed or since
    task.flags = bor(task.flags, RECORD, RESUMED)
    materialise(rid)
    call('HSETNX', T .. ':r:' .. rid, 'b', spack('>I6', task.started))
    if band(task.flags, JOURNALED) ~= 0 then call('HDEL', T .. ':j:' .. journal_of(rid, step), 's') end
    local stored = spack('>I6', 0) .. element_of(tid, write_tail(task))
    call('RPUSH', key, stored)
    Aside.count(task.queue, lane, 1)
    call('HSET', T .. ':t:' .. rid, 's' .. step, spack('>Hc0Hc0', #lane, lane, #stored, stored) .. reason)
    set_phase(rid, step, 'S', task.attempt, task.recoveries)
    call('SADD', T .. ':q', task.queue)
    count('s', task.queue, 1)
    count('l', task.queue, -1)
    Wake.waiting(task.queue, 1, function(session) return Aside.is_open(Announced.of(session), lane) end)
  end

  -- Takes a stalled task out of its lane.
  function Aside.leave(rid, step)
    local stall = call('HGET', T .. ':t:' .. rid, 's' .. step)
    if not stall then return end
    local lane, stored = sunpack('>Hc0Hc0', stall)
    local tid, tail = split_element(sub(stored, 7))
    local task = read_tail(tail)
    if call('LREM', Aside.list(TEXT[class_of(RESUMED, task.prio)], task.queue, lane), 1, stored) == 0 then return end
    Aside.count(task.queue, lane, -1)
    count('s', task.queue, -1)
    return tid, tail
  end

  -- Forgets that a task was stalled, which goes elsewhere.
  function Aside.forget(rid, step, flags)
    if band(flags, RESUMED) ~= 0 then call('HDEL', T .. ':t:' .. rid, 's' .. step) end
  end
end

-- How many tasks an element stands for.
function Aside.tasks_in(element)
  return byte(element, 1) == 0 and byte(element, 2) or 1
end

-- The workflow of a task or of neighbours; nil if the run is not there.
function Announced.workflow_of(element)
  local J, first = split_span(element)
  local rid = J and J .. 'i' .. spack('>I4', first) or rid_of((split_element(element)))
  local entry = entry_of(rid)
  return entry and Announced.workflow_at(entry, Announced.IN_ENTRY)
end

-- The large fan-out that the task of a child, or those of neighbours, belong to: its journal and its workflow; nil if the run is not there.
function FanOut.of(element, workflow)
  workflow = workflow or Announced.workflow_of(element)
  if not workflow then return nil end
  return byte(element, 1) == 0 and sub(element, 3, 20) or sub(element, 2, 19), workflow
end

-- A list of ready tasks, as a check names it: '' the queue's own, 'a' and a workflow what was set aside of it, 'f' and J and a
-- workflow a large fan-out.
function FanOut.list_named(queue, class, which)
  if which == '' then return list_key(queue, class) end
  if byte(which, 1) == 97 then return Aside.list(class, queue, sub(which, 2)) end
  return FanOut.list(class, queue, sub(which, 2, 19), sub(which, 20))
end

do
  -- Tells sessions that wanted more from the queue than it had: one for each task, each once. `can`: whether a session
  -- may be told; nil if all may.
  function Wake.waiting(queue, tasks, can)
    if Pauses.has_queue(queue) then return end
    local key, passed = T .. ':y:' .. queue, {}
    while tasks > 0 do
      local waiting = call('ZPOPMIN', key, math.max(tasks, #passed))
      if #waiting == 0 then break end
      for i = 1, #waiting, 2 do
        if tasks == 0 or can and not can(waiting[i]) then
          passed[#passed + 1] = waiting[i + 1]
          passed[#passed + 1] = waiting[i]
        elseif alive(waiting[i]) then
          notify(waiting[i], 'W' .. queue)
          tasks = tasks - 1
        end
      end
    end
    in_pieces('ZADD', key, passed)
  end

  -- Tells sessions that wait of what is ready or stalled once more: up to `most` of each kind for which there may be something.
  function Wake.again(queue, most)
    if Pauses.has_queue(queue) then return end
    local counts = call('HMGET', T .. ':n', 'r' .. queue, 's' .. queue)
    most = math.min(most, (tonumber(counts[1] or 0) or 0) + (tonumber(counts[2] or 0) or 0))
    if most <= 0 then return end
    local is_set_aside = call('EXISTS', Aside.index(queue)) == 1
    if not is_set_aside and not Pauses.workflows and Announced.is_uniform() then return Wake.waiting(queue, most) end
    local others = call('EXISTS', unpack(list_keys(queue))) > 0
    local told = {}
    Wake.waiting(queue, most * 1000, function(session)
      local kind = Announced.of(session)
      if told[kind] == nil then
        told[kind] = (others or is_set_aside and #Aside.open_to(kind, queue) > 0 or FanOut.is_open_to(kind, queue)) and 0 or most
      end
      if told[kind] >= most or not alive(session) then return false end
      told[kind] = told[kind] + 1
      return true
    end)
  end

  local function wake_for_workflow(queue, workflow, tasks)
    if Pauses.has_workflow(workflow) then return end
    Wake.waiting(queue, tasks, function(session) return Announced.can_run(session, workflow) end)
  end

  -- Tells sessions of tasks that became ready.
  function Wake.for_list(list)
    if list.workflow and not list.is_mixed then return wake_for_workflow(list.queue, list.workflow, list.tasks) end
    if not Pauses.workflows and Announced.is_uniform() then return Wake.waiting(list.queue, list.tasks) end
    if call('EXISTS', T .. ':y:' .. list.queue) == 0 then return end
    local tasks = {}
    for _, element in ipairs(list.elements) do
      local workflow = Announced.workflow_of(element)
      if workflow then tasks[workflow] = (tasks[workflow] or 0) + Aside.tasks_in(element) end
    end
    for workflow, number in pairs(tasks) do wake_for_workflow(list.queue, workflow, number) end
  end
end
