-- Tasks as queue elements, and the queues.
--
--   rid      a run: 16 bytes of a root run's uid, or parent uid (16) step (2) then 'i' index (4) or 'k' key hash (16),
--            then the generation (4) if it is not 0
--   tid      a task: rid, step (2)
--   tail     flags (1; in a request to start runs 32 and 128 mean something else, see start.lua) priority and 4 if it is of a
--            large fan-out (1) queue length (1) queue, then with EXT: attempt (4) recoveries (4) first claim of
--            this attempt (6) first claim of the run (6), both 0 if never
--   element  length of tid (1) tid tail; or a span, which stands for the lean tasks (see lease.lua) of neighbours in
--            one chunk: 0 (1) number (1) parent uid (16) step (2) first index (4) tail
--   held     what a session holds of a task: token (12) claimed (6) tail. All tasks of one claim share a token; each is
--            a task's own only together with its tid.
local RECORD, JOURNALED, FIRST, RESUMED, DETACHED, QUEUE_TIMED, EXT, RUN_TIMED = 1, 2, 4, 8, 16, 32, 64, 128
local STEP0 = '\0\0'

local function queue_of(tail)
  return sub(tail, 4, 3 + byte(tail, 3))
end

local function read_tail(tail)
  local flags, prio, queue, at = sunpack('>BBBc0', tail)
  local task = { flags = flags, prio = prio, queue = queue, attempt = 1, recoveries = 0, claimed = 0, started = 0 }
  if band(flags, EXT) ~= 0 then
    task.attempt, task.recoveries, task.claimed, task.started = sunpack('>I4I4I6I6', tail, at)
  end
  return task
end

local function write_tail(task)
  return spack('>BBBc0I4I4I6I6', bor(task.flags, EXT), task.prio, #task.queue, task.queue, task.attempt, task.recoveries,
    task.claimed, task.started)
end

local function element_of(tid, tail)
  return char(#tid) .. tid .. tail
end

local function split_element(element)
  local n = byte(element, 1)
  return sub(element, 2, n + 1), sub(element, n + 2)
end

local function span_element(J, first, number, tail)
  return spack('>BBc18I4', 0, number, J, first) .. tail
end

-- The journal, the first index, the number and the tail of a span; nil if the element is of one task.
local function split_span(element)
  if byte(element, 1) > 0 then return nil end
  local number, J, first, at = sunpack('>Bc18I4', element, 2)
  return J, first, number, sub(element, at)
end

-- Calls `visit` with the tid and the tail of each task of an element.
local function each_task(element, visit)
  local J, first, number, tail = split_span(element)
  if not J then return visit(split_element(element)) end
  for i = first, first + number - 1 do visit(J .. 'i' .. spack('>I4', i) .. STEP0, tail) end
end

local function token_of(held)
  return sub(held, 1, 12)
end

local function claimed_of(held)
  return sub(held, 13, 18)
end

local function tail_of(held)
  return sub(held, 19)
end

local function read_held(held)
  return read_tail(tail_of(held))
end

local function flags_of(held)
  return byte(held, 19)
end

local function with_flags(held, more)
  return sub(held, 1, 18) .. char(bor(byte(held, 19), more)) .. sub(held, 20)
end

do
  -- Whether the first `n` bytes of a text may be the name of a run: a root's, or that of a child with an index or a key, of
  -- whatever generation.
  local function is_rid_of(text, n)
    if n == 16 then return true end
    local kind = byte(text, 19)
    return kind == 105 and (n == 23 or n == 27) or kind == 107 and (n == 35 or n == 39)
  end

  function Damage.is_rid(rid)
    return is_rid_of(rid, #rid)
  end

  -- The tid and the tail of an element of one task, as far as they can be one; an error if not.
  function Damage.checked_element(element)
    local tid, tail = split_element(element)
    local length = byte(tail, 3)
    length = length and length + (band(byte(tail, 1), EXT) ~= 0 and 23 or 3)
    if not length or #tail < length or not is_rid_of(tid, #tid - 2) then error('it names no task') end
    return tid, tail
  end
end

local function rid_of(tid)
  return sub(tid, 1, -3)
end

-- The lists of a queue, in the order in which they are claimed from: 0 to 2 resumed, 3 to 5 new, each by priority.
local function class_of(flags, prio)
  return (band(flags, RESUMED) ~= 0 and 0 or 3) + prio % 4
end

local function list_key(queue, class)
  return T .. ':q:' .. class .. ':' .. queue
end

local function list_keys(queue)
  local keys = {}
  for class = 0, 5 do keys[class + 1] = list_key(queue, TEXT[class]) end
  return keys
end

-- Notifications of sessions, and what sessions announce, see announced.lua.
local Wake, Announced, Aside = {}, {}, {}

-- Large fan-outs: the children of one step that run one workflow take turns with what else is ready in their class, as long as
-- they are not resumed.
--
--   T:F:class:queue                             list: the workflows of those of which something is ready, in the order of their turns
--   T:H:class:length (1) queue workflow         list: their journals, in the order of their turns
--   T:G:class:length (1) queue J (18) workflow  list: the elements of one, as in the queue's own list
--   T, field turn (class) queue                 how often an odd number was claimed while there were some
-- There are no empty ones: each list is named in the one before it as long as it is there.
local FanOut = { BIT = 4 }

function FanOut.workflows(class, queue)
  return T .. ':F:' .. class .. ':' .. queue
end

function FanOut.rotation(class, queue, workflow)
  return T .. ':H:' .. class .. ':' .. BYTE[#queue] .. queue .. workflow
end

function FanOut.list(class, queue, J, workflow)
  return T .. ':G:' .. class .. ':' .. BYTE[#queue] .. queue .. J .. workflow
end

-- Those of the workflows that a session of this kind can run and that are not paused.
function FanOut.open_to(kind, workflows)
  local open = {}
  for _, workflow in ipairs(workflows) do
    if (kind.any or kind.workflows[workflow]) and not Pauses.has_workflow(workflow) then open[#open + 1] = workflow end
  end
  return open
end

function FanOut.is_open_to(kind, queue)
  for class = 3, 5 do
    local workflows = call('LRANGE', FanOut.workflows(TEXT[class], queue), 0, -1)
    if #FanOut.open_to(kind, workflows) > 0 then return true end
  end
  return false
end

-- Something became ready of one of which nothing was.
function FanOut.add(class, queue, J, workflow)
  if call('RPUSH', FanOut.rotation(class, queue, workflow), J) == 1 then
    call('RPUSH', FanOut.workflows(class, queue), workflow)
  end
end

local pushed, pushed_order
-- `element` and `workflow` may be nil; then a child of a large fan-out is queued like others.
local function list_for(tail, element, workflow)
  local known = pushed[tail]
  if known then return known end
  local flags, prio, queue = sunpack('>BBBc0', tail)
  local class, J = TEXT[class_of(flags, prio)], nil
  local in_fan_out = prio >= FanOut.BIT and band(flags, RESUMED) == 0
  if in_fan_out and element then J, workflow = FanOut.of(element, workflow) end
  local key = J and FanOut.list(class, queue, J, workflow) or list_key(queue, class)
  local list = pushed[key]
  if not list then
    if call('LLEN', key) == 0 and J then
      call('LLEN', FanOut.rotation(class, queue, workflow))
      call('LLEN', FanOut.workflows(class, queue))
    end
    call('ZCARD', T .. ':y:' .. queue)
    list = { key = key, queue = queue, class = class, J = J, of = workflow, n = 0, elements = {}, tasks = 0 }
    pushed[key], pushed_order[#pushed_order + 1] = list, list
  end
  if not in_fan_out then pushed[tail] = list end
  return list
end

-- Makes sure that a task of this kind can be made ready.
function Touch.queue(tail, element, workflow)
  return pushed[tail] or list_for(tail, element, workflow)
end

-- `workflow`: where it is known. `number` is that of a span's tasks.
local function make_ready(tail, element, workflow, number)
  local list = pushed[tail] or list_for(tail, element, workflow)
  if list.n == 0 then list.workflow = workflow elseif list.workflow ~= workflow then list.is_mixed = true end
  list.n, list.tasks = list.n + 1, list.tasks + (number or 1)
  list.elements[list.n] = element
end

local function flush_ready()
  for _, list in ipairs(pushed_order) do
    if list.n > 0 then
      if in_pieces('RPUSH', list.key, list.elements) == list.n then
        if list.J then FanOut.add(list.class, list.queue, list.J, list.of) end
        call('SADD', T .. ':q', list.queue)
      end
      count('r', list.queue, list.tasks)
      Wake.for_list(list)
    end
  end
  pushed, pushed_order = emptied(pushed), emptied(pushed_order)
end
