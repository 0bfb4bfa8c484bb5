--! allow-oom
-- Commits leased tasks.
-- ARGV: session, 12 bytes of a new token, 1 if the reply of a call with some of these commits was lost, retention in
-- ms, then for
--   each commit three: its tid; token (12) kind (1) parts (1); and the rest, which is by the bits of parts: 16 uid (16) and what the step
--   knows (13), 1 expected
--   state (4+), which is not there with 8: then it is what the last commit of this run in this call wrote; and new state: how many of the
--   first (4) and of the last (4) bytes are those of the expected one, and what is between them (4+); 2 number of outputs (2) and for each
--   step (2) payload (4+), 4 number of ready steps (2) and for each step (2) keep (1); then by kind: 'C' continue, 'D' done, 'E' end: the ending, 'R' retry: attempt (4)
--   delay (6) failure, 'P' park: uid (16) sequence (4) on failure (1) seen (4) timed (1) within (6) what the step knows (13), 'L' release or
--   'B' return: delay (6), 'S' stall: length (2) name reason, 'W' wait: uid (16) seen (4); or for the ends of first tasks of children in one chunk, claimed
--   together, three: the chunk (22); token (12) 1 if all succeeded (1) and their positions; for each length (4) and its
--   ending
-- Reply: now, results as one character each (. L E M S), stored states of those with S, events, kept tasks as pairs
-- like claim's, 1 if cancellations are left to do.
local session, again, leases_key, lease_head, results, states, tasks
-- Leases that end with this call: those still to be taken out of the hash, those of them that may be in a span, and
-- all.
local gone, gone_from_span, is_gone
-- What concerns runs with several steps. `changed`: those of which more than a simple end was committed, so that what was read of their
-- leases may be out of date. `runs`: what is stored of those of which steps are over, and what is to be written of them by Step.flush;
-- `order`: their order. `leased`: the same of leases. `written`: the states that commits of this call wrote.
local Step = {}
-- Whether anybody watches any run.
local watched

-- What leases tell, which is the same for all that were claimed together. A task is simple that is the first of its run, was not stopped
-- before, has no journal, and does not share its run with others.
local leases
local function read_lease(held)
  local task = read_held(held)
  local started = task.started > 0 and spack('>I6', task.started) or claimed_of(held)
  local lean, simple = band(task.flags, RECORD) == 0, band(task.flags, bor(FIRST, JOURNALED, RESUMED, EXT)) == FIRST
  local lease = {
    token = token_of(held), lean = lean, simple = simple, timed = band(task.flags, RUN_TIMED) ~= 0, queue = task.queue,
    moments = started .. now6, ended = 0, resumed = task.started > 0, has_journal = band(task.flags, JOURNALED) ~= 0,
    is_fresh = band(task.flags, bor(FIRST, RESUMED, EXT)) == FIRST,
  }
  leases[held] = lease
  return lease
end

-- The spans of lean leases in a chunk. `stored` is nil if it must be read.
local chunks
local function read_chunk(chunk, stored)
  if stored == nil then stored = call('HGET', leases_key, chunk) end
  local spans = stored and Lease.read(stored) or {}
  for _, span in ipairs(spans) do span.lease = leases[span.held] or read_lease(span.held) end
  local read = { spans = spans, changed = false }
  chunks[chunk] = read
  return read
end

local take_places
do
  -- Positions without as many of the first of `places` as are among them; and how many these are.
  local function without_places(positions, places)
    local at, upto = string.find(positions, places, 1, true)
    if at then return sub(positions, 1, at - 1) .. sub(positions, upto + 1), #places end
    for n = 1, #places do
      at = string.find(positions, sub(places, n, n), 1, true)
      if not at then return positions, n - 1 end
      positions = sub(positions, 1, at - 1) .. sub(positions, at + 1)
    end
    return positions, #places
  end

  -- Takes as many of the first of `places` as one span holds with this token out of it; the span and how many these
  -- are.
  function take_places(read, token, places)
    for _, span in ipairs(read.spans) do
      if span.token == token then
        local left, taken = without_places(span.places, places)
        if taken > 0 then
          span.places, read.changed = left, true
          return span, taken
        end
      end
    end
  end
end

-- Brings what is stored up to what was committed so far; what was read before is out of date then.
local flushed
local function flush_ended()
  flushed = true
  Step.flush()
  for chunk, read in pairs(chunks) do
    if read.changed then Lease.store(leases_key, chunk, read.spans) end
  end
  -- Behind the chunks, which may have been read while these were still in them.
  in_pieces('HDEL', leases_key, gone)
  for _, tid in ipairs(gone_from_span) do Lease.leave_span(leases_key, tid) end
  for _, lease in pairs(leases) do
    count('l', lease.queue, -lease.ended)
    lease.ended = 0
  end
  gone, gone_from_span, chunks = emptied(gone), emptied(gone_from_span), emptied(chunks)
  flush_journals()
  flush_watchers()
end

-- Writes what was gathered.
local function write_gathered()
  flush_ended()
  flush_all()
end

-- `alone`: it is known to have a field of its own.
local function forget_lease(tid, alone)
  gone[#gone + 1] = tid
  if not alone then gone_from_span[#gone_from_span + 1] = tid end
  is_gone[tid] = true
end

local function let_go(tid, queue)
  forget_lease(tid)
  count('l', queue, -1)
end

-- Writes what was gathered of runs with several steps: a command for each kind of change of a run.
function Step.flush()
  for _, run in ipairs(Step.order) do
    if run.is_changed then
      in_pieces('HSET', T .. ':u:' .. run.rid, run.outputs)
      if run.began then
        call('HSET', T .. ':r:' .. run.rid, 'S', run.state, 'b', run.began)
      else
        call('HSET', T .. ':r:' .. run.rid, 'S', run.state)
      end
      in_pieces('HSET', T .. ':t:' .. run.rid, run.phases)
    end
  end
  in_pieces('HSET', leases_key, Step.leased)
  Step.runs, Step.order, Step.leased = emptied(Step.runs), emptied(Step.order), emptied(Step.leased)
end

-- Puts down the end of a run that the caller commits.
local function conclude_own(rid, started, ending, queue)
  conclude(rid, started, ending, queue)
  if #rid > 16 then
    local of_parent = resolved[parent_journal(rid)]
    of_parent.ends = of_parent.ends + 1
  end
end

-- How runs end. `tids` and `alone`: children that are not in spans and what was read of their leases; `starts`: by commit, behind which of
-- them its own stand. `is_only`: the tasks of which it is known that their run has no other.
local Ending = {}

-- A run ends of which nothing but its entry has to be looked at.
function Ending.lean(tid, lease, ending)
  conclude_own(rid_of(tid), sub(lease.moments, 1, 6), ending, lease.queue)
  forget_lease(tid, true)
  lease.ended = lease.ended + 1
end

-- A run ends that has a record, and whose first task is its only one and ran at once. It has no children, which make
-- journals, and the limit of its time in the queue was over when the task was claimed.
function Ending.simple(tid, lease, ending)
  local rid = rid_of(tid)
  if #rid > 16 then
    Ending.lean(tid, lease, ending)
  else
    conclude_alone(rid, sub(lease.moments, 1, 6), ending, lease.queue)
    forget_lease(tid, true)
    lease.ended = lease.ended + 1
  end
  if lease.timed then call('ZREM', T .. ':z', 'r' .. rid) end
end

-- The same of one that has a journal.
function Ending.with_journal(tid, lease, ending)
  local rid = rid_of(tid)
  local J = journal_of(rid, sub(tid, -2))
  if not J or Step.runs[rid] then return Ending.recorded(tid, lease, ending) end
  local is_open = Run.is_open(J)
  Ending.lean(tid, lease, ending)
  Run.leave_journal(J, is_open, ending)
  if lease.timed then call('ZREM', T .. ':z', 'r' .. rid) end
end

-- Any other run ends, of which this call has changed nothing before.
function Ending.recorded(tid, lease, ending)
  local rid = rid_of(tid)
  if Step.runs[rid] then flush_ended() end
  Touch.result(rid)
  Step.changed[rid] = true
  local known = close_tasks(rid, tid, ending, lease.queue)
  forget_lease(tid, true)
  lease.ended = lease.ended + 1
  conclude_own(rid, not lease.resumed and known or sub(lease.moments, 1, 6), ending, lease.queue)
end

do
  -- Reads the leases of children of which none is in a span, and notes where those of each commit begin.
  local function read_alone(stored)
    local tids, alone = {}, {}
    for n, held in ipairs(stored) do
      local name = ARGV[3 * n + 2]
      if #name == 22 and not held then
        local start, first, head = sub(name, 1, 18) .. 'i', (sunpack('>I4', name, 19)) * 64, ARGV[3 * n + 3]
        Ending.starts[n] = #tids
        for at = 14, #head do tids[#tids + 1] = start .. spack('>I4c2', first + byte(head, at), STEP0) end
      end
    end
    for from = 1, #tids, 1000 do
      local upto = math.min(from + 999, #tids)
      local some = call('HMGET', leases_key, unpack(tids, from, upto))
      for i = from, upto do alone[i] = some[i - from + 1] end
    end
    Ending.tids, Ending.alone = tids, alone
  end

  -- Reads what is needed of many that end at once. `stored`: what is stored of their leases.
  function Ending.look(stored)
    local keys, tids = {}, {}
    local function look(tid, held)
      local lease = held and (leases[held] or read_lease(held))
      if lease and lease.has_journal and lease.is_fresh then
        tids[#tids + 1], keys[#keys + 1] = tid, T .. ':t:' .. rid_of(tid)
      end
    end
    read_alone(stored)
    for i, tid in ipairs(Ending.tids) do look(tid, Ending.alone[i]) end
    for n, held in ipairs(stored) do
      if held and #ARGV[3 * n + 2] ~= 22 then
        local kind, parts = byte(ARGV[3 * n + 3], 13, 14)
        if kind == 69 and parts == 0 then look(ARGV[3 * n + 2], held) end
      end
    end
    -- Of the first task nothing is stored while it is the only one.
    Touch.mark_absent(keys, tids, Ending.is_only)
  end
end

-- What a call does that repeats one whose reply was lost.
local Again = {}

-- Gives the tasks again that the lost reply of this very call gave.
function Again.give_kept(nonce)
  local gives = false
  for i = 5, #ARGV, 3 do gives = gives or #ARGV[i] ~= 22 and band(byte(ARGV[i + 1], 14), 4) ~= 0 end
  if not gives then return end
  Lease.each_given(leases_key, nonce, function(tid, held)
    tasks[#tasks + 1] = element_of(tid, tail_of(held))
    tasks[#tasks + 1] = without_input(entry_of(rid_of(tid)))
  end)
end

-- Tells the caller again what the lost reply may have told it.
function Again.tell(rid)
  local result = result_of(rid)
  if not result then return end
  inline[#inline + 1] = 'E' .. BYTE[#rid] .. rid .. sub(result, 17)
  if #rid == 16 then return end
  local J, slot = parent_journal(rid), slot_of(rid)
  local journal = call('HMGET', T .. ':j:' .. J, 's', 'o')
  if journal[1] == session then
    local item = spack('>Hc0I4c0', #slot, slot, #result, result)
    inline[#inline + 1] = 'R' .. J .. BYTE[#journal[2]] .. journal[2] .. item
  end
end

local function refuse(tid)
  local why = Run.refusal(rid_of(tid))
  if again and why == 'E' then Again.tell(rid_of(tid)) end
  return why
end

-- The parts of a commit before its kind's own. `expected` is false where it is what another commit should have written that was refused.
local function read_parts(packed, parts, at, rid)
  local change = { outputs = {}, ready = {} }
  if band(parts, 1) ~= 0 then
    local first, last, between
    if band(parts, 8) ~= 0 then
      change.expected = Step.written[rid] or false
    else
      change.expected, at = sunpack('>I4c0', packed, at)
    end
    Step.written[rid] = nil
    first, last, between, at = sunpack('>I4I4I4c0', packed, at)
    local from = change.expected or ''
    change.new = sub(from, 1, first) .. between .. (last > 0 and sub(from, -last) or '')
  end
  if band(parts, 2) ~= 0 then
    local n
    n, at = sunpack('>H', packed, at)
    for i = 1, n do
      local step, payload
      step, payload, at = sunpack('>c2I4c0', packed, at)
      change.outputs[2 * i - 1], change.outputs[2 * i] = step, payload
    end
  end
  if band(parts, 4) ~= 0 then
    local n
    n, at = sunpack('>H', packed, at)
    for i = 1, n do
      local step, keep
      step, keep, at = sunpack('>c2B', packed, at)
      change.ready[i] = { step = step, keep = keep == 1 }
    end
  end
  return change, at
end

-- The tail of a task that a commit makes of a step.
local function new_tail(from, flags)
  return write_tail({
    flags = bor(RECORD, band(from.flags, DETACHED), flags), prio = from.prio, queue = from.queue, attempt = 1, recoveries = 0,
    claimed = 0, started = from.started,
  })
end

local function make_step_ready(rid, from, ready)
  local tid = rid .. ready.step
  local known = call('HGET', T .. ':t:' .. rid, ready.step)
  if known and byte(known, 1) ~= 88 then return end
  local J, flags = journal_of(rid, ready.step), 0
  if J and call('EXISTS', T .. ':j:' .. J) == 1 then flags = JOURNALED end
  local tail = new_tail(from, flags)
  set_phase(rid, ready.step, 'R', 1, 0)
  local entry = ready.keep and entry_of(rid)
  if not entry or not Announced.may_keep(session, Announced.workflow_at(entry, Announced.IN_ENTRY), from.queue) then
    return make_ready(tail, element_of(tid, tail))
  end
  call('HSET', leases_key, tid, lease_head .. tail)
  count('l', from.queue, 1)
  tasks[#tasks + 1] = element_of(tid, tail)
  tasks[#tasks + 1] = without_input(entry)
end

-- The first task of a run is not written down before something happens to it.
local function task_is_over(rid, step, task)
  set_phase(rid, step, 'X', task.attempt, task.recoveries)
end

-- Tasks that wait for their journals without a lease. `unknown`: the runs of which no task is written down.
local Parking = {}

-- Parks a task that has a journal.
function Parking.put(J, tid, held, task, packed, at)
  local rid, step = rid_of(tid), sub(tid, -2)
  local _, at_sequence, on_failure, _, timed, within = sunpack('>c16I4BI4BI6', packed, at)
  local since = sunpack('>I6', held, 13)
  task.started = task.started > 0 and task.started or since
  task.claimed = task.claimed > 0 and task.claimed or since
  Aside.forget(rid, step, task.flags)
  task.flags = bor(task.flags, RECORD, JOURNALED, RESUMED)
  call('HSETNX', T .. ':r:' .. rid, 'b', spack('>I6', task.started))
  local journal, element = T .. ':j:' .. J, element_of(tid, write_tail(task))
  call('HDEL', journal, 's')
  if timed == 1 then
    call('HSET', journal, 'p', spack('>I4B', at_sequence, on_failure), 'pe', element, 'pz', 1)
    Clock.set(within, 'p' .. J)
  else
    call('HSET', journal, 'p', spack('>I4B', at_sequence, on_failure), 'pe', element)
  end
  set_phase(rid, step, 'P', task.attempt, task.recoveries)
  count('p', task.queue, 1)
end

-- Whether the journal has what would wake a task, or less than its step knows, so that what it waits for may be forgotten; and whether the
-- journal is there.
function Parking.has_moved(packed, at, rid, step)
  local uid, at_sequence, on_failure, seen, _, _, sequence, children, named, state = sunpack('>c16I4BI4BI6I4I4I4B', packed, at)
  local journal = call('HMGET', T .. ':j:' .. uid .. step, 'q', 'lf', 'n', 'k', 'o')
  for i = 1, 4 do journal[i] = tonumber(journal[i] or 0) end
  local is_forgotten = journal[1] < math.max(seen, sequence) or journal[3] < children or journal[4] < named
    or state == 1 and call('HEXISTS', T .. ':r:' .. rid, 'S') == 0
  return is_forgotten or journal[1] >= at_sequence or on_failure == 1 and journal[2] > seen, journal[5]
end

-- Looks at the tasks that are to be parked, before one of them is. `stored`: what is stored of their leases.
function Parking.look(stored)
  local keys, rids = {}, {}
  for n, held in ipairs(stored) do
    local tid = ARGV[3 * n + 2]
    if held and #tid ~= 22 and byte(ARGV[3 * n + 3], 13) == 80 then
      keys[#keys + 1], rids[#rids + 1] = T .. ':t:' .. rid_of(tid), rid_of(tid)
    end
  end
  Touch.mark_absent(keys, rids, Parking.unknown)
end

-- Parks a task that waits for its journal and changes nothing else, with as few commands as possible: what most come to. Nil if it is
-- something else, which has to be looked at more closely; then nothing was changed.
function Parking.park(tid, held, packed)
  local rid, step = rid_of(tid), sub(tid, -2)
  local J = sub(packed, 1, 16) .. step
  if Step.runs[rid] then return nil end
  if resolved[J] then flush_journals() end
  local has_moved, is_there = Parking.has_moved(packed, 1, rid, step)
  if has_moved then return 'M' end
  if not is_there then return nil end
  if not Parking.unknown[rid] then Touch.hash(':t:', rid) end
  local task = read_held(held)
  Parking.put(J, tid, held, task, packed, 1)
  forget_lease(tid, true)
  count('l', task.queue, -1)
  return '.'
end

local kinds = {}

function kinds.C() end

-- For people: see view.
local function note_wait(tid, token, packed, at)
  local uid, seen = sunpack('>c16c4', packed, at)
  call('HSET', T .. ':j:' .. uid .. sub(tid, -2), 'w', token .. seen)
end

function kinds.W(tid, held, _, packed, at)
  if band(flags_of(held), JOURNALED) ~= 0 then note_wait(tid, token_of(held), packed, at) end
end

function kinds.D(tid, held, task)
  let_go(tid, task.queue)
  task_is_over(rid_of(tid), sub(tid, -2), task)
  Aside.forget(rid_of(tid), sub(tid, -2), task.flags)
  if band(task.flags, JOURNALED) ~= 0 then
    call('HDEL', T .. ':j:' .. journal_of(rid_of(tid), sub(tid, -2)), 's')
  end
end

function kinds.E(tid, held, task, packed, at)
  let_go(tid, task.queue)
  flush_ended()
  local rid = rid_of(tid)
  local ending = sub(packed, at)
  local known = close_tasks(rid, tid, ending, task.queue)
  local started = task.started > 0 and spack('>I6', task.started) or known or claimed_of(held)
  conclude_own(rid, started, ending, task.queue)
end

function kinds.R(tid, held, _, packed, at)
  local attempt, delay, failure = sunpack('>I4I6', packed, at)
  Run.give_back(tid, held, { attempt = attempt, delay = delay })
  call('HSET', T .. ':t:' .. rid_of(tid), 'f' .. sub(tid, -2), sub(packed, failure))
  forget_lease(tid)
end

function kinds.P(tid, held, task, packed, at)
  let_go(tid, task.queue)
  local J = open_journal(rid_of(tid), sub(packed, at, at + 15), sub(tid, -2), session)
  Parking.put(J, tid, held, task, packed, at)
end

function kinds.L(tid, held, _, packed, at)
  Run.give_back(tid, held, { delay = (sunpack('>I6', packed, at)) })
  forget_lease(tid)
end

function kinds.S(tid, held, _, packed, at)
  local unless, reason = sunpack('>Hc0', packed, at)
  Aside.stall(tid, held, unless, sub(packed, reason))
  forget_lease(tid)
end

function kinds.B(tid, held, _, packed, at)
  Run.give_back_undone(tid, held, (sunpack('>I6', packed, at)))
  forget_lease(tid)
end

-- Stores the state and the outputs; the lease, which tells from now on that the run has a record. By a task that is returned
-- undone the run has not started.
local function write_parts(rid, tid, held, task, change, undone)
  materialise(rid)
  if change.new then call('HSET', T .. ':r:' .. rid, 'S', change.new) end
  in_pieces('HSET', T .. ':u:' .. rid, change.outputs)
  task.flags = bor(task.flags, RECORD)
  if not undone then
    if task.started == 0 then task.started = (sunpack('>I6', held, 13)) end
    call('HSETNX', T .. ':r:' .. rid, 'b', spack('>I6', task.started))
  end
  held = sub(held, 1, 18) .. write_tail(task)
  Lease.put(leases_key, tid, held)
  return held
end

-- Looks at what a commit may change, before it changes anything.
local function touch_all(tid, kind, packed, at, task, change)
  local rid, prio = rid_of(tid), BYTE[task.prio] .. BYTE[#task.queue] .. task.queue
  if kind ~= 'E' or change.expected or #change.outputs > 0 then
    Touch.run(rid)
    Touch.hash(':u:', rid)
  end
  if kind == 'P' or kind == 'W' then Touch.hash(':j:', sub(packed, at, at + 15) .. sub(tid, -2)) end
  if kind == 'R' or #change.ready > 0 then Touch.queue(BYTE[0] .. prio) end
  if kind == 'L' or kind == 'B' then Touch.queue(BYTE[RESUMED] .. prio) end
  if kind == 'B' then Touch.queue(BYTE[0] .. prio) end
  if kind == 'E' then Touch.result(rid) end
  if kind == 'S' then Aside.touch(tid, task, (sunpack('>Hc0', packed, at))) end
end

-- What is known of a run with several steps.
function Step.run_of(rid)
  local run = Step.runs[rid]
  if run then return run end
  local stored = call('HMGET', T .. ':r:' .. rid, 'S', 'b', 's')
  run = {
    rid = rid, state = stored[1] or '', has_begun = stored[2], entry = stored[3] or nil, outputs = {}, phases = {}, are_tasks = {},
    looked_at = {},
  }
  Step.runs[rid], Step.order[#Step.order + 1] = run, run
  return run
end

-- Looks at a hash of a run before it is changed.
function Step.touch(run, name)
  if run.looked_at[name] then return end
  run.looked_at[name] = true
  Touch.hash(name, run.rid)
end

-- Whether none of these steps was a task before, so that none has a journal.
function Step.are_new(run, ready)
  if #ready == 0 then return true end
  if #ready > 1000 then return false end
  local steps = {}
  for i, one in ipairs(ready) do
    if run.are_tasks[one.step] then return false end
    steps[i] = one.step
  end
  for _, known in ipairs(call('HMGET', T .. ':t:' .. run.rid, unpack(steps))) do
    if known then return false end
  end
  run.looked_at[':t:'] = true
  return true
end

-- Has steps become tasks that were none before: those that are to be kept and can run here are leased.
function Step.make_ready(run, from, ready)
  local tail, rid, phases = new_tail(from, 0), run.rid, run.phases
  for _, one in ipairs(ready) do
    local element = element_of(rid .. one.step, tail)
    run.are_tasks[one.step] = true
    phases[#phases + 1], phases[#phases + 2] = one.step, 'R' .. spack('>I4I4', 1, 0)
    if one.keep and run.may_keep == nil then
      run.entry = run.entry or entry_of(rid)
      local workflow = run.entry and Announced.workflow_at(run.entry, Announced.IN_ENTRY)
      run.may_keep = workflow and Announced.may_keep(session, workflow, from.queue) or false
    end
    if one.keep and run.may_keep then
      local leased = Step.leased
      leased[#leased + 1], leased[#leased + 2] = rid .. one.step, lease_head .. tail
      tasks[#tasks + 1], tasks[#tasks + 2] = element, without_input(run.entry)
      count('l', from.queue, 1)
    else
      make_ready(tail, element)
    end
  end
end

-- A step of a run that has a record is over, and others may follow: what most steps of a graph come to, with as few commands as
-- possible. Nil if it is something else, which has to be looked at more closely; then nothing was changed.
function Step.done(tid, held, packed, parts)
  local task = read_held(held)
  if band(task.flags, RECORD) == 0 or band(parts, 1) == 0 then return nil end
  local rid, step = rid_of(tid), sub(tid, -2)
  local run, written = Step.run_of(rid), Step.written[rid]
  local change = read_parts(packed, parts, 1, rid)
  if run.state ~= change.expected then
    states[#states + 1] = run.state
    return 'S'
  end
  if not Step.are_new(run, change.ready) then
    Step.written[rid] = written
    return nil
  end
  -- What is to be changed is looked at before anything is.
  if #change.outputs > 0 then Step.touch(run, ':u:') end
  Step.touch(run, ':t:')
  if #change.ready > 0 then Touch.queue(BYTE[0] .. BYTE[task.prio] .. BYTE[#task.queue] .. task.queue) end
  if task.started == 0 then task.started = (sunpack('>I6', held, 13)) end
  if not run.has_begun then
    run.has_begun, run.began = true, spack('>I6', task.started)
  end
  for _, part in ipairs(change.outputs) do run.outputs[#run.outputs + 1] = part end
  run.state, run.is_changed, Step.written[rid] = change.new, true, change.new
  local phases = run.phases
  phases[#phases + 1], phases[#phases + 2] = step, 'X' .. spack('>I4I4', task.attempt, task.recoveries)
  run.are_tasks[step] = true
  Step.make_ready(run, task, change.ready)
  Aside.forget(rid, step, task.flags)
  if band(task.flags, JOURNALED) ~= 0 then call('HDEL', T .. ':j:' .. journal_of(rid, step), 's') end
  forget_lease(tid, true)
  count('l', task.queue, -1)
  return '.'
end

local function commit_fully(tid, held, kind, packed, parts)
  flush_ended()
  local rid = rid_of(tid)
  Step.changed[rid] = true
  local change, at = read_parts(packed, parts, 1, rid)
  if change.new then
    local stored = call('HGET', T .. ':r:' .. rid, 'S') or ''
    if again and stored == change.new and stored ~= change.expected then
      change.ready = {}
    elseif stored ~= change.expected then
      states[#states + 1] = stored
      return 'S'
    end
  end
  if kind == 'P' and Parking.has_moved(packed, at, rid, sub(tid, -2)) then return 'M' end
  Step.written[rid] = change.new or Step.written[rid]
  local task = read_held(held)
  local ready = kind ~= 'E' and change.ready or {}
  touch_all(tid, kind, packed, at, task, change)
  if change.expected or #change.outputs > 0 or #ready > 0 then
    held = write_parts(rid, tid, held, task, change, kind == 'B')
    if kind == 'C' and call('HEXISTS', T .. ':t:' .. rid, sub(tid, -2)) == 0 then
      set_phase(rid, sub(tid, -2), 'R', task.attempt, task.recoveries)
    end
  end
  kinds[kind](tid, held, task, packed, at)
  if #ready > 0 then
    -- The task may make its own position ready again, so it must have let go of it.
    flush_ended()
    for _, step in ipairs(ready) do make_step_ready(rid, task, step) end
  end
  return '.'
end

local function commit_one(tid, head, rest, held)
  local token = sub(head, 1, 12)
  local kind, parts = byte(head, 13, 14)
  if band(parts, 16) ~= 0 then
    flush_ended()
    local stored, J = Lease.held(leases_key, tid), sub(rest, 1, 16) .. sub(tid, -2)
    if stored and token_of(stored) == token and Run.knows_more(rid_of(tid), J, sub(rest, 17, 29)) then return 'M' end
    parts, rest = parts - 16, sub(rest, 30)
  end
  local lease = held and not is_gone[tid] and (leases[held] or read_lease(held))
  if lease and lease.token == token and kind == 69 and parts == 0 and not Step.changed[rid_of(tid)] then
    local end_it = lease.lean and Ending.lean or lease.simple and Ending.simple
      or Ending.is_only[tid] and Ending.with_journal or Ending.recorded
    end_it(tid, lease, rest)
    return '.'
  end
  if lease and lease.token == token and kind == 68 and not again and not Step.changed[rid_of(tid)] then
    local result = Step.done(tid, held, rest, parts)
    if result then return result end
  end
  if lease and lease.token == token and kind == 87 and parts == 0 and lease.has_journal then
    note_wait(tid, token, rest, 1)
    return '.'
  end
  if lease and lease.token == token and kind == 80 and parts == 0 and lease.has_journal and not Step.changed[rid_of(tid)] then
    local result = Parking.park(tid, held, rest)
    if result then return result end
  end
  -- What stands before it in the batch may have changed the lease.
  flush_ended()
  held = Lease.held(leases_key, tid)
  if held and token_of(held) == token then return commit_fully(tid, held, BYTE[kind], rest, parts) end
  if band(parts, 1) ~= 0 then Step.written[rid_of(tid)] = nil end
  return refuse(tid)
end

local end_children
do
  -- Notes the last of some packed endings that is a failure.
  local function note_failures(group, before, packed, at, number)
    for n = 1, number do
      if byte(packed, at + 4) ~= 115 then group.failed = before + n end
      at = skip_packed(packed, at, 1)
    end
  end

  -- Puts down how some children of one chunk ended that were held in one span. Their endings are in `packed` from `at`
  -- on.
  local function resolve_held(group, piece, lease, places, packed, at, upto, all_succeeded)
    local number, n, before = #places, piece.n, group.sequence
    if number == 1 then at = at + 4 end
    piece[n + 1] = places
    piece[n + 2] = next_sequence(group) .. lease.moments .. (at > 1 and sub(packed, at, upto - 1) or packed)
    piece.n, group.n, group.sequence = n + 2, group.n + number, before + number
    group.children, group.ends = group.children + number, group.ends + number
    lease.ended = lease.ended + number
    if not all_succeeded then note_failures(group, before, packed, number == 1 and at - 4 or at, number) end
  end

  local function tell_watchers(J, first, places, packed, at)
    for n = 1, #places do
      local rid, ending = J .. 'i' .. spack('>I4', first + byte(places, n)), nil
      ending, at = sunpack('>I4c0', packed, at)
      over[rid] = ending
      over_order[#over_order + 1] = rid
    end
  end

  -- The tids of children, and what is stored of leases under them.
  local function read_alone(J, first, places)
    local tids = {}
    for n = 1, #places do tids[n] = J .. 'i' .. spack('>I4', first + byte(places, n)) .. STEP0 end
    return tids, call('HMGET', leases_key, unpack(tids))
  end

  -- Ends children of one chunk. Those that are not lean, or not held, are committed one by one. `start`: behind which of those that were
  -- read they stand, if they do.
  function end_children(chunk, head, packed, stored, start)
    local J, token, first = sub(chunk, 1, 18), sub(head, 1, 12), (sunpack('>I4', chunk, 19)) * 64
    local all_succeeded, places, at = byte(head, 13) == 1, sub(head, 14), 1
    local tids, alone
    while places ~= '' do
      local read, span, ended, group, piece = chunks[chunk] or not start and read_chunk(chunk, stored), nil, nil, nil, nil
      if read and #read.spans > 0 then
        -- Before anything is changed, since another program's key may stand there.
        group = group_of(J)
        piece = piece_for(group, T .. ':C:' .. chunk)
        span, ended = take_places(read, token, places)
      end
      if span then
        local upto, these = #packed + 1, places
        if ended < #places then upto, these = skip_packed(packed, at, ended), sub(places, 1, ended) end
        resolve_held(group, piece, span.lease, these, packed, at, upto, all_succeeded)
        if watched then tell_watchers(J, first, these, packed, at) end
        results[#results + 1] = string.rep('.', ended)
        places, at = sub(places, ended + 1), upto
      else
        if not start and not tids then tids, alone = read_alone(J, first, places) end
        local n, ending, after = (start and #head - 13 or #tids) - #places + 1, sunpack('>I4c0', packed, at)
        if start then
          results[#results + 1] = commit_one(Ending.tids[start + n], token .. 'E\0', ending, Ending.alone[start + n])
        else
          results[#results + 1] = commit_one(tids[n], token .. 'E\0', ending, alone[n])
        end
        stored, places, at = nil, sub(places, 2), after
      end
    end
  end
end

-- Reads the leases of all commits at once: what is stored of each, in their order.
local function read_leases()
  local fields = {}
  for i = 5, #ARGV, 3 do fields[#fields + 1] = ARGV[i] end
  Places.look_up_tasks(fields)
  return #fields > 0 and call('HMGET', leases_key, unpack(fields)) or fields
end

local function commit_all()
  local stored = read_leases()
  Ending.look(stored)
  Parking.look(stored)
  for n, held in ipairs(stored) do
    local i = 3 * n + 2
    local name, head, rest = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if #name == 22 then
      -- What stands before it in the batch may have changed the leases of the chunk.
      if #gone_from_span > 0 then flush_ended() end
      if flushed then held = nil end
      end_children(name, head, rest, held, Ending.starts[n])
    else
      results[#results + 1] = commit_one(name, head, rest, held)
    end
  end
end

local function command()
  session, again = ARGV[1], ARGV[3] == '1'
  retention = tonumber(ARGV[4])
  if not alive(session) then return session_lost() end
  leases_key, lease_head, Run.unread.committer = T .. ':l:' .. session, ARGV[2] .. now6, session
  -- What is in the inbox already comes first.
  if call('EXISTS', T .. ':i:' .. session, T .. ':k') == 0 then
    caller, tearing = session, false
  else
    caller = call('EXISTS', T .. ':i:' .. session) == 0 and session or nil
  end
  watched = call('EXISTS', T .. ':o') == 1
  results, states, tasks = {}, {}, {}
  gone, gone_from_span, is_gone, Step.changed = emptied(gone), emptied(gone_from_span), emptied(is_gone), emptied(Step.changed)
  leases, chunks, flushed = emptied(leases), emptied(chunks), false
  Parking.unknown = emptied(Parking.unknown)
  Ending.starts, Ending.is_only = emptied(Ending.starts), emptied(Ending.is_only)
  Step.runs, Step.order, Step.leased, Step.written = emptied(Step.runs), emptied(Step.order), emptied(Step.leased), emptied(Step.written)
  conclude_call = write_gathered
  if again then Again.give_kept(ARGV[2]) end
  commit_all()
  flush_ended()
  local left = tearing == false and 0 or call('EXISTS', T .. ':k')
  if left == 1 then
    teardown(64)
    left = call('EXISTS', T .. ':k')
  end
  flush_all()
  return { now, table.concat(results), states, inline, tasks, left }
end
