-- Runs: whether they ended, ending them, and taking their tasks from wherever they are.

local Run = {}

local child_of
do
  -- The entry and the result, false if there is none, of a generation that a later one replaced: kept beside the
  -- journal.
  local function replaced(rid)
    local kept = call('HGET', T .. ':O:' .. parent_journal(rid), sub(rid, 19))
    if not kept then return nil end
    local entry, at = sunpack('>I4c0', kept)
    return entry, sub(kept, at)
  end

  function Run.keep_replaced(J, slot, entry, result)
    local generation = sunpack('>I4', entry)
    call('HSET', T .. ':O:' .. J, sub(child_rid(J, slot, generation), 19), spack('>I4c0', #entry, entry) .. result)
  end

  -- The entry of a child, nil if there is none; where its result would be, nil and the result if it was replaced.
  function child_of(rid)
    local slot = slot_of(rid)
    local list, results, at = place_of_slot(parent_journal(rid), slot)
    local entry = list and read_child(list, at, slot)
    if not entry then return nil end
    if (sunpack('>I4', entry)) == generation_of(rid) then return entry, results, at end
    local before, result = replaced(rid)
    return before, nil, result
  end
end

-- The stored entry of a run; nil if there is none.
local function entry_of(rid)
  if #rid == 16 then return call('HGET', T .. ':r:' .. rid, 's') or nil end
  return (child_of(rid))
end

-- The result of a run that ended, false if it has not, nil if there is no such run.
local function result_of(rid)
  if #rid == 16 then
    local record = call('HMGET', T .. ':r:' .. rid, 'e', 'w')
    if record[2] then return record[1] end
    return nil
  end
  local entry, results, found = child_of(rid)
  if not entry then return nil end
  if results then return Result.read(results, found) end
  return found
end

-- A tree that is being removed is not there any more, whatever is left of it.
function Run.is_removed(rid)
  if #rid == 16 then return false end
  local root = root_of(rid)
  return not root or call('EXISTS', T .. ':r:' .. root) == 0
end

-- How the runs that this call ended did so, and their order.
local over, over_order

-- What a step knows of what is stored of it, as a call states it: sequence (4) children (4) names and keys (4) 1 if the run has a state (1).
Run.KNOWS_NOTHING = '\0\0\0\0\0\0\0\0\0\0\0\0\0'
Run.KNOWS_STATE = '\0\0\0\0\0\0\0\0\0\0\0\0\1'

-- Whether a step knows more of its journal J and its run than is stored: then the store has lost its latest changes.
function Run.knows_more(rid, J, known)
  local sequence, children, named, state = sunpack('>I4I4I4B', known)
  if sequence + children + named > 0 then
    local journal = call('HMGET', T .. ':j:' .. J, 'q', 'n', 'k')
    for i, least in ipairs({ sequence, children, named }) do
      if tonumber(journal[i] or 0) < least then return true end
    end
  end
  return state == 1 and call('HEXISTS', T .. ':r:' .. rid, 'S') == 0
end

-- What a refused write is answered with: 'E' if the run ended, else 'L'.
function Run.refusal(rid)
  if over[rid] then return 'E' end
  if result_of(rid) == false then return 'L' end
  if result_of(rid) then return 'E' end
  return 'L'
end

-- Puts down how a run ended, and who must hear of it. Its tasks and timers are another matter: see close_tasks.
local function conclude(rid, started6, ending, queue)
  local moments = started6 .. now6
  if #rid == 16 then
    call('HSET', T .. ':r:' .. rid, 'e', '\0\0\0\0' .. moments .. ending, 'k', sub(ending, 1, 1))
    run_ended_in_tree(rid, 1, now)
    Roots.note_end(rid, ending, queue)
  else
    local J, slot = parent_journal(rid), slot_of(rid)
    if byte(slot, 1) == 105 then
      local chunk, at = chunk_of(J, (sunpack('>I4', slot, 2)))
      resolve(J, T .. ':C:' .. chunk, at, nil, moments, ending, true)
    else
      local _, results, at = place_of_slot(J, slot)
      resolve(J, results, at, slot, moments, ending, true)
    end
  end
  over[rid] = ending
  over_order[#over_order + 1] = rid
end

-- The same for a root run that is all that is unfinished in its tree.
local function conclude_alone(rid, started6, ending, queue)
  call('HSET', T .. ':r:' .. rid, 'e', '\0\0\0\0' .. started6 .. now6 .. ending, 'k', sub(ending, 1, 1), 'L', '0')
  to_forget[#to_forget + 1] = now + retention
  to_forget[#to_forget + 1] = rid
  Roots.note_end(rid, ending, queue)
  over[rid] = ending
  over_order[#over_order + 1] = rid
end

-- Kept signals that nobody has taken when their run ends, see signal.lua.
Run.unread = {}

-- Tells those who watch the runs that were concluded.
local function flush_watchers()
  if #over_order == 0 or call('EXISTS', T .. ':o') == 0 then return end
  local told = {}
  for from = 1, #over_order, 1000 do
    local upto = math.min(from + 999, #over_order)
    local watchers = call('HMGET', T .. ':o', unpack(over_order, from, upto))
    for i = 1, upto - from + 1 do
      local list, rid = watchers[i], over_order[from + i - 1]
      if list then
        told[#told + 1] = rid
        for at = 1, #list, 16 do
          local session = sub(list, at, at + 15)
          if session == Run.unread.MARK then
            Run.unread.report(rid)
          -- The caller has shown that it is.
          elseif session == caller or alive(session) then
            notify(session, 'E' .. char(#rid) .. rid .. over[rid], true)
          end
        end
      end
    end
  end
  in_pieces('HDEL', T .. ':o', told)
  over, over_order = emptied(over), emptied(over_order)
end

-- What is done after an error, see finish.
local conclude_call
local function flush_all()
  flush_journals()
  Roots.flush()
  flush_watchers()
  flush_ready()
  flush_counts()
end

-- Whether descendants of ended runs are left to be cancelled; nil if this call has not asked.
local tearing

local close_tasks
do
  function Run.holder_of(tid)
    for _, session in ipairs(holders()) do
      local held = Lease.held(T .. ':l:' .. session, tid)
      if held then return session, held end
    end
  end

  -- Takes a ready or leased task away; when it was first claimed, nil if it was not leased.
  local function revoke(tid, why, queue)
    local session, held = Run.holder_of(tid)
    if not session then
      -- It stays in a ready list until somebody takes it out, and does not count any more.
      count('r', queue, -1)
      count('g', queue, 1)
      return nil
    end
    Lease.drop(T .. ':l:' .. session, tid)
    local task = read_held(held)
    count('l', task.queue, -1)
    notify(session, 'V' .. char(#tid) .. tid .. token_of(held) .. why)
    return task.started > 0 and spack('>I6', task.started) or claimed_of(held)
  end

  -- Takes away one task of a run that ends, according to what is stored of it.
  local function close_task(rid, step, stored, why, queue)
    local phase = stored and sub(stored, 1, 1) or 'R'
    local started
    if phase == 'R' then
      started = revoke(rid .. step, why, queue)
    elseif phase == 'D' then
      call('ZREM', T .. ':z', 'd' .. sub(stored, 10))
      count('d', queue, -1)
    elseif phase == 'P' then
      leave_park(journal_of(rid, step))
    elseif phase == 'S' then
      Aside.leave(rid, step)
    end
    if stored and phase ~= 'X' then call('HSET', T .. ':t:' .. rid, step, 'X' .. sub(stored, 2, 9)) end
    return started
  end

  local PARENT_ENDED = 'its parent ended'

  -- The reason that a run's children are cancelled with when it ends like this.
  function Run.cascade_of(ending)
    return byte(ending, 1) == 99 and sub(ending, 2) or PARENT_ENDED
  end

  -- Whether something is open in a journal: children, or timers.
  function Run.is_open(J)
    -- Of its children some may have ended in this call.
    if resolved[J] then flush_journals() end
    local open = call('HMGET', T .. ':j:' .. J, 'u', 'tm')
    return tonumber(open[1] or 0) > 0 or tonumber(open[2] or 0) > 0
  end

  -- Nobody holds the journal of a run any more that ends, and what is open in it is taken away.
  function Run.leave_journal(J, is_open, ending)
    call('HDEL', T .. ':j:' .. J, 's')
    if not is_open then return end
    call('RPUSH', T .. ':k', J .. 'c' .. spack('>I4', 0) .. Run.cascade_of(ending))
    tearing = true
  end

  -- Takes away all tasks and timers of a run that ends, but the task `except`, and has its children cancelled; when the
  -- run was first claimed, as far as its tasks tell.
  function close_tasks(rid, except, ending, queue)
    local why = byte(ending, 1) == 99 and ending or 'e'
    local record = call('HMGET', T .. ':r:' .. rid, 'U', 'j', 'tq', 'tr', 'b')
    local started = record[5]
    if record[3] then call('ZREM', T .. ':z', 'q' .. rid) end
    if record[4] then call('ZREM', T .. ':z', 'r' .. rid) end
    local tasks, first_known = call('HGETALL', T .. ':t:' .. rid), false
    for i = 1, #tasks, 2 do
      local step = tasks[i]
      if #step == 2 then
        if step == STEP0 then first_known = true end
        if rid .. step ~= except then
          started = close_task(rid, step, tasks[i + 1], why, queue) or started
        else
          call('HSET', T .. ':t:' .. rid, step, 'X' .. sub(tasks[i + 1], 2, 9))
        end
      end
    end
    if not first_known and rid .. STEP0 ~= except then started = close_task(rid, STEP0, nil, why, queue) or started end
    local uid = #rid == 16 and rid or record[1]
    for at = 1, #(record[2] or ''), 2 do
      local J = uid .. sub(record[2], at, at + 1)
      Run.leave_journal(J, Run.is_open(J), ending)
    end
    return record[5] or started
  end
end

-- Ends an unfinished run from outside: cancelled or expired.
function Run.end_run(rid, ending, except)
  local meta = entry_meta(entry_of(rid))
  Touch.result(rid)
  local started = close_tasks(rid, except, ending, meta.queue)
  conclude(rid, started or NEVER6, ending, meta.queue)
end

-- While cancellations are under way: the reason with which a descendant is about to be cancelled, nil if it is not.
local doomed
function Run.doom_of(rid, detached)
  if tearing == nil then tearing = call('EXISTS', T .. ':k') == 1 end
  if not tearing or detached or #rid == 16 then return nil end
  local J = parent_journal(rid)
  if doomed[J] == nil then
    local owner = call('HGET', T .. ':j:' .. J, 'o')
    local result = owner and result_of(owner)
    if result then
      doomed[J] = Run.cascade_of(sub(result, 17))
    else
      local entry = owner and entry_of(owner)
      doomed[J] = entry and Run.doom_of(owner, entry_meta(entry).detached) or false
    end
  end
  return doomed[J] or nil
end

-- Gives a leased task back: with another recovery or not, at once or after a delay, at another attempt or not.
function Run.give_back(tid, held, change)
  local rid, step = rid_of(tid), sub(tid, -2)
  local task = read_held(held)
  local since = sunpack('>I6', held, 13)
  if task.started == 0 then task.started = since end
  if task.claimed == 0 then task.claimed = since end
  task.recoveries = task.recoveries + (change.recovered and 1 or 0)
  task.flags = bor(task.flags, RECORD)
  Aside.forget(rid, step, task.flags)
  if change.attempt then
    task.attempt, task.claimed = change.attempt, 0
  end
  if band(task.flags, RESUMED) ~= 0 then task.flags = task.flags - RESUMED end
  -- In front, but where it waited.
  if not change.attempt and not (change.delay and change.delay > 0) then task.flags = bor(task.flags, RESUMED) end
  local tail = write_tail(task)
  Touch.run(rid)
  Touch.queue(tail, element_of(tid, tail))
  materialise(rid)
  call('HSETNX', T .. ':r:' .. rid, 'b', spack('>I6', task.started))
  if band(task.flags, JOURNALED) ~= 0 then call('HDEL', T .. ':j:' .. journal_of(rid, step), 's') end
  local element = element_of(tid, tail)
  if change.delay and change.delay > 0 then
    Clock.set(change.delay, 'd' .. element)
    count('d', task.queue, 1)
    set_phase(rid, step, 'D', task.attempt, task.recoveries, element)
  else
    set_phase(rid, step, 'R', task.attempt, task.recoveries)
    make_ready(tail, element)
  end
  count('l', task.queue, -1)
end

-- Gives a leased task back as if it had not been claimed, at once or after a delay.
function Run.give_back_undone(tid, held, delay)
  local rid, step, tail = rid_of(tid), sub(tid, -2), tail_of(held)
  local task = read_tail(tail)
  local flags = task.flags
  Aside.forget(rid, step, flags)
  if band(flags, FIRST) ~= 0 and task.started == 0 then
    local due = call('HGET', T .. ':r:' .. rid, 'qd')
    if due then
      flags = bor(flags, QUEUE_TIMED)
      call('ZADD', T .. ':z', due, 'q' .. rid)
    end
  end
  if band(flags, JOURNALED) ~= 0 then call('HDEL', T .. ':j:' .. journal_of(rid, step), 's') end
  if delay > 0 then
    if band(flags, RESUMED) ~= 0 then flags = flags - RESUMED end
    tail = BYTE[bor(flags, RECORD)] .. sub(tail, 2)
    local element = element_of(tid, tail)
    Touch.run(rid)
    materialise(rid)
    Clock.set(delay, 'd' .. element)
    count('d', task.queue, 1)
    set_phase(rid, step, 'D', task.attempt, task.recoveries, element)
  else
    tail = BYTE[flags] .. sub(tail, 2)
    make_ready(tail, Lease.element(tid, tail))
  end
  count('l', task.queue, -1)
end
