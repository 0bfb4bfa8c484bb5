--! allow-oom
-- Commits leased tasks.
-- ARGV: session, 12 bytes of a new token, 1 if the reply of a call with some of these commits was lost, retention in
-- ms, then for
--   each commit three: its tid, which no other commit of the call has; token (12) kind (1) parts (1); and the rest,
--   which is by the bits of parts: 1 expected state (4+) new state (4+), 2 number of outputs (2)
--   and for each step (2) payload (4+), 4 number of ready steps (2) and for each step (2) keep (1); then by kind:
--   'C' continue, 'D' done, 'E' end: the ending, 'R' retry: attempt (4) delay (6) failure,
--   'P' park: uid (16) sequence (4) on failure (1) seen (4) timed (1) within (6), 'L' release: delay (6)
-- Reply: now, results as one character each (. L E M S), stored states of those with S, events, kept tasks as pairs
-- like claim's.
local session, nonce, again = ARGV[1], ARGV[2], ARGV[3] == '1'
retention = tonumber(ARGV[4])
if not alive(session) then return session_lost() end
caller = session
local leases_key = T .. ':l:' .. session
-- What is in the inbox already comes first.
if call('EXISTS', T .. ':i:' .. session) == 1 then caller = nil end
local lease_head = nonce .. now6
local results, states, tasks = {}, {}, {}
local gone, gone_count = {}, 0
local watched = call('EXISTS', T .. ':o') == 1

-- What leases tell, which is the same for all that were claimed together.
local leases = {}
local function read_lease(held)
  local task = read_tail(tail_of(held))
  local started = task.started > 0 and spack('>I6', task.started) or claimed_of(held)
  local lean = band(task.flags, RECORD) == 0
  local lease = { token = token_of(held), lean = lean, queue = task.queue, moments = started .. now6, ended = 0 }
  leases[held] = lease
  return lease
end

local function flush_ended()
  if gone_count > 0 then
    in_pieces('HDEL', leases_key, gone)
    gone, gone_count = {}, 0
    for _, lease in pairs(leases) do
      count('l', lease.queue, -lease.ended)
      lease.ended = 0
    end
  end
  flush_journals()
  flush_watchers()
end

local function forget_lease(tid)
  gone_count = gone_count + 1
  gone[gone_count] = tid
end

local function let_go(tid, queue)
  forget_lease(tid)
  count('l', queue, -1)
end

-- Puts down the end of a run that the caller commits.
local function conclude_own(rid, started, ending)
  conclude(rid, started, ending)
  if #rid > 16 then
    local of_parent = resolved[parent_journal(rid)]
    of_parent.ends = of_parent.ends + 1
  end
end

-- A child with an index and without a record ends: its parent's journal is all that changes.
local last_J, group, keys_of_J
local function end_lean_child(tid, lease, ending)
  local J = sub(tid, 1, 18)
  if J ~= last_J or resolved[J] ~= group then
    last_J, keys_of_J = J, {}
    group = resolved[J] or new_group(J)
  end
  local a, b, c, d = byte(tid, 20, 23)
  local number = ((a * 256 + b) * 256 + c) * 256 + d
  local at = number % 64
  number = (number - at) / 64
  local results = keys_of_J[number]
  if not results then
    results = T .. ':C:' .. J .. spack('>I4', number)
    keys_of_J[number] = results
  end
  local n = group.n + 1
  group.n, group.children, group.ends = n, group.children + 1, group.ends + 1
  group.results[n], group.at[n], group.key[n] = results, TEXT[at], tid
  group.moments[n], group.rest[n], group.failed[n] = lease.moments, ending, byte(ending, 1) ~= 115
  if watched then
    local rid = rid_of(tid)
    over[rid] = ending
    over_order[#over_order + 1] = rid
  end
end

-- A run without a record ends.
local function end_lean(tid, lease, ending)
  forget_lease(tid)
  lease.ended = lease.ended + 1
  if #tid == 25 and byte(tid, 19) == 105 then return end_lean_child(tid, lease, ending) end
  conclude_own(rid_of(tid), sub(lease.moments, 1, 6), ending)
end

-- Tells the caller again what the lost reply may have told it.
local function tell_again(rid)
  local result = result_of(rid)
  if not result then return end
  inline[#inline + 1] = 'E' .. char(#rid) .. rid .. sub(result, 17)
  if #rid == 16 then return end
  local J, slot = parent_journal(rid), slot_of(rid)
  local journal = call('HMGET', T .. ':j:' .. J, 's', 'o')
  if journal[1] == session then
    local item = spack('>Hc0I4c0', #slot, slot, #result, result)
    inline[#inline + 1] = 'R' .. J .. char(#journal[2]) .. journal[2] .. item
  end
end

local function refuse(tid)
  local why = refusal(rid_of(tid))
  if again and why == 'E' then tell_again(rid_of(tid)) end
  return why
end

-- The parts of a commit before its kind's own.
local function read_parts(packed, parts, at)
  local change = { outputs = {}, ready = {} }
  if band(parts, 1) ~= 0 then change.expected, change.new, at = sunpack('>I4c0I4c0', packed, at) end
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

local function make_step_ready(rid, from, ready, entry)
  local tid = rid .. ready.step
  local known = call('HGET', T .. ':t:' .. rid, ready.step)
  if known and byte(known, 1) ~= 88 then return end
  local flags = bor(RECORD, band(from.flags, DETACHED))
  local J = journal_of(rid, ready.step)
  if J and call('EXISTS', T .. ':j:' .. J) == 1 then flags = bor(flags, JOURNALED) end
  local tail = spack('>BBBc0I4I4I6I6', bor(flags, EXT), from.prio, #from.queue, from.queue, 1, 0, 0, from.started)
  set_phase(rid, ready.step, 'R', 1, 0)
  if not ready.keep then return make_ready(tail, element_of(tid, tail)) end
  call('HSET', leases_key, tid, lease_head .. tail)
  count('l', from.queue, 1)
  tasks[#tasks + 1] = element_of(tid, tail)
  tasks[#tasks + 1] = without_input(entry)
end

-- The first task of a run is not written down before something happens to it.
local function task_is_over(rid, step, task)
  set_phase(rid, step, 'X', task.attempt, task.recoveries)
end

local function park(tid, held, task, packed, at)
  local rid, step = rid_of(tid), sub(tid, -2)
  local uid, at_sequence, on_failure, _, timed, within = sunpack('>c16I4BI4BI6', packed, at)
  local since = sunpack('>I6', held, 13)
  task.started = task.started > 0 and task.started or since
  task.claimed = task.claimed > 0 and task.claimed or since
  task.flags = bor(task.flags, RECORD, JOURNALED, RESUMED)
  local J = open_journal(rid, uid, step, session)
  call('HSETNX', T .. ':r:' .. rid, 'b', spack('>I6', task.started))
  local journal = T .. ':j:' .. J
  call('HDEL', journal, 's')
  call('HSET', journal, 'p', spack('>I4B', at_sequence, on_failure), 'pe', element_of(tid, write_tail(task)))
  if timed == 1 then
    call('HSET', journal, 'pz', 1)
    call('ZADD', T .. ':z', exactly + within, 'p' .. J)
  end
  set_phase(rid, step, 'P', task.attempt, task.recoveries)
  count('p', task.queue, 1)
end

local function would_wake(packed, at, step)
  local uid, at_sequence, on_failure, seen = sunpack('>c16I4BI4', packed, at)
  local journal = call('HMGET', T .. ':j:' .. uid .. step, 'q', 'lf')
  return tonumber(journal[1] or 0) >= at_sequence or (on_failure == 1 and tonumber(journal[2] or 0) > seen)
end

local kinds = {}

function kinds.C() end

function kinds.D(tid, held, task)
  let_go(tid, task.queue)
  task_is_over(rid_of(tid), sub(tid, -2), task)
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
  conclude_own(rid, started, ending)
end

function kinds.R(tid, held, _, packed, at)
  local attempt, delay, failure = sunpack('>I4I6', packed, at)
  give_back(tid, held, { attempt = attempt, delay = delay })
  call('HSET', T .. ':t:' .. rid_of(tid), 'f' .. sub(tid, -2), sub(packed, failure))
  forget_lease(tid)
end

function kinds.P(tid, held, task, packed, at)
  let_go(tid, task.queue)
  park(tid, held, task, packed, at)
end

function kinds.L(tid, held, _, packed, at)
  give_back(tid, held, { delay = (sunpack('>I6', packed, at)) })
  forget_lease(tid)
end

-- Stores the state and the outputs; the lease, which tells from now on that the run has a record.
local function write_parts(rid, tid, held, task, change)
  materialise(rid)
  if change.new then call('HSET', T .. ':r:' .. rid, 'S', change.new) end
  in_pieces('HSET', T .. ':u:' .. rid, change.outputs)
  task.flags = bor(task.flags, RECORD)
  if task.started == 0 then task.started = (sunpack('>I6', held, 13)) end
  call('HSETNX', T .. ':r:' .. rid, 'b', spack('>I6', task.started))
  held = sub(held, 1, 18) .. write_tail(task)
  call('HSET', leases_key, tid, held)
  return held
end

local function commit_fully(tid, held, kind, packed, parts)
  flush_ended()
  local rid = rid_of(tid)
  local change, at = read_parts(packed, parts, 1)
  if change.expected then
    local stored = call('HGET', T .. ':r:' .. rid, 'S') or ''
    if again and stored == change.new and stored ~= change.expected then
      change.ready = {}
    elseif stored ~= change.expected then
      states[#states + 1] = stored
      return 'S'
    end
  end
  if kind == 'P' and would_wake(packed, at, sub(tid, -2)) then return 'M' end
  local task = read_tail(tail_of(held))
  local ready = kind ~= 'E' and change.ready or {}
  if change.expected or #change.outputs > 0 or #ready > 0 then
    held = write_parts(rid, tid, held, task, change)
    if kind == 'C' and call('HEXISTS', T .. ':t:' .. rid, sub(tid, -2)) == 0 then
      set_phase(rid, sub(tid, -2), 'R', task.attempt, task.recoveries)
    end
  end
  kinds[kind](tid, held, task, packed, at)
  if #ready > 0 then
    -- The task may make its own position ready again, so it must have let go of it.
    flush_ended()
    local entry = entry_of(rid)
    for _, step in ipairs(ready) do make_step_ready(rid, task, step, entry) end
  end
  return '.'
end

local tids, commits = {}, (#ARGV - 4) / 3
for i = 1, commits do tids[i] = ARGV[3 * i + 2] end
local all_held = commits > 0 and call('HMGET', leases_key, unpack(tids)) or {}
local last_head, token, kind, parts

for i = 1, commits do
  local tid, head, rest, held = tids[i], ARGV[3 * i + 3], ARGV[3 * i + 4], all_held[i]
  if head ~= last_head then
    last_head, token = head, sub(head, 1, 12)
    kind, parts = byte(head, 13, 14)
  end
  local lease = held and (leases[held] or read_lease(held))
  if lease and lease.token == token then
    if kind == 69 and parts == 0 and lease.lean then
      end_lean(tid, lease, rest)
      results[i] = '.'
    else
      -- What stands before it in the batch may have changed the lease.
      held = call('HGET', leases_key, tid)
      results[i] = held and commit_fully(tid, held, char(kind), rest, parts) or refuse(tid)
    end
  else
    flush_ended()
    results[i] = refuse(tid)
  end
end
flush_ended()
if call('EXISTS', T .. ':k') == 1 then teardown(64) end
flush_all()
return { now, table.concat(results), states, inline, tasks }
