--! no-writes
-- Counts the tasks of each queue.
-- Reply: for each queue: name, ready, delayed, leased, parked, stalled, unserved.

-- How many tasks of unfinished runs there are in what was set aside of a workflow.
local function count_unfinished(queue, workflow)
  local unfinished = 0
  for class = 0, 5 do
    for _, stored in ipairs(call('LRANGE', Aside.list(TEXT[class], queue, workflow), 0, -1)) do
      each_task(sub(stored, 7), function(tid)
        if result_of(rid_of(tid)) == false then unfinished = unfinished + 1 end
      end)
    end
  end
  return unfinished
end

-- How many of the first tasks that were not set aside are of workflows for which this does not hold.
local function count_first(queue, has_garbage, is_served)
  local left, total = 1000, 0
  for class = 0, 5 do
    for _, element in ipairs(left > 0 and call('LRANGE', list_key(queue, TEXT[class]), 0, left - 1) or {}) do
      each_task(element, function(tid)
        local rid = rid_of(tid)
        local entry = left > 0 and entry_of(rid)
        if not entry or has_garbage and result_of(rid) ~= false then return end
        left = left - 1
        if not is_served(Announced.workflow_at(entry, Announced.IN_ENTRY)) then total = total + 1 end
      end)
    end
  end
  return total
end

-- How many tasks there are in large fan-outs of workflows for which this does not hold, as far as a thousand elements.
local function count_fan_outs(queue, has_garbage, is_served)
  local left, total = 1000, 0

  local function count_one(list)
    local elements = call('LRANGE', list, 0, left - 1)
    left = left - #elements
    for _, element in ipairs(elements) do
      each_task(element, function(tid)
        if not has_garbage or result_of(rid_of(tid)) == false then total = total + 1 end
      end)
    end
  end

  for class = 3, 5 do
    local class = TEXT[class]
    for _, workflow in ipairs(call('LRANGE', FanOut.workflows(class, queue), 0, -1)) do
      local journals = {}
      if left > 0 and not is_served(workflow) then
        journals = call('LRANGE', FanOut.rotation(class, queue, workflow), 0, left - 1)
      end
      for _, J in ipairs(journals) do
        if left > 0 then count_one(FanOut.list(class, queue, J, workflow)) end
      end
    end
  end
  return total
end

-- How many of the ready tasks of a queue no open session serves.
local function unserved(kinds, queue, ready, has_garbage)
  local serving = {}
  for _, kind in ipairs(kinds) do
    if kind.any or kind.queues[queue] then serving[#serving + 1] = kind end
  end
  if #serving == 0 then return ready end
  local function is_served(workflow)
    for _, kind in ipairs(serving) do
      if kind.any or kind.workflows[workflow] then return true end
    end
    return false
  end
  local total = count_first(queue, has_garbage, is_served) + count_fan_outs(queue, has_garbage, is_served)
  local aside = call('HGETALL', Aside.index(queue))
  for i = 1, #aside, 2 do
    local workflow, number = aside[i], tonumber(aside[i + 1])
    if not Aside.is_stalled(workflow) and not is_served(workflow) then
      total = total + (has_garbage and count_unfinished(queue, workflow) or number)
    end
  end
  return total
end

local function command()
  local kinds = Announced.by_open_sessions()
  local counted, reply = {}, {}
  local tallied = call('HGETALL', T .. ':n')
  for i = 1, #tallied, 2 do counted[tallied[i]] = tonumber(tallied[i + 1]) end
  local queues, known = call('SMEMBERS', T .. ':q'), {}
  for _, queue in ipairs(queues) do known[queue] = true end
  for field in pairs(counted) do
    local queue = sub(field, 2)
    if not known[queue] then
      known[queue] = true
      queues[#queues + 1] = queue
    end
  end
  for _, queue in ipairs(queues) do
    reply[#reply + 1] = queue
    for _, what in ipairs({ 'r', 'd', 'l', 'p', 's' }) do reply[#reply + 1] = counted[what .. queue] or 0 end
    local ready = counted['r' .. queue] or 0
    reply[#reply + 1] = ready > 0 and unserved(kinds, queue, ready, (counted['g' .. queue] or 0) > 0) or 0
  end
  return reply
end
