--! allow-oom
-- Does what is due.
-- ARGV: changes at most, retention in ms, the process that sweeps
-- Reply: changes, ms until there is something to do again, -1 if nothing is known; 1 if another process has just swept; by how many ms the
-- clock went back, if this is the first to do something about it, else 0.
local budget, changes
-- For how long what a sweep found counts as just found.
local JUST_MS = 25

local function bury_sessions()
  for _, session in ipairs(call('ZRANGE', T .. ':s', '-inf', '(' .. now, 'BYSCORE', 'LIMIT', 0, budget)) do
    fence(session, 'd')
    changes = changes + 1
  end
  for _, session in ipairs(call('HKEYS', T .. ':v')) do
    if changes >= budget then return end
    local fine, some = pcall(drain, session, call('HGET', T .. ':v', session), math.min(budget - changes, 1000))
    if not fine and Damage.is_refusal(some) then
      Damage.postpone(T .. ':v', session, some)
    elseif not fine then
      error(some, 0)
    end
    changes = changes + (fine and some or 0)
  end
end

-- What is done about each kind of what is due: a member of the set, and its number among those that were looked at together.
local due = {}

function due.d(member)
  local rest = sub(member, 2)
  local tid, tail = Damage.checked_element(rest)
  if result_of(rid_of(tid)) ~= false then error('it is of a run that is not there or has ended') end
  local task = read_tail(tail)
  Touch.queue(tail, rest)
  set_phase(rid_of(tid), sub(tid, -2), 'R', task.attempt, task.recoveries)
  count('d', task.queue, -1)
  make_ready(tail, rest)
end

function due.t(member, i)
  if #member ~= 23 then error('it names no timer') end
  fire(i)
end

function due.p(member)
  local J = sub(member, 2)
  if #J ~= 18 then error('it names no journal') end
  unpark(J)
end

local function expire(rid, limit, field)
  if not Damage.is_rid(rid) then error('it names no run') end
  if result_of(rid) ~= false then return end
  local length = call('HGET', T .. ':r:' .. rid, field)
  if length then Run.end_run(rid, 'e' .. limit .. length) end
end

function due.q(member)
  expire(sub(member, 2), 'q', 'tq')
end

function due.r(member)
  expire(sub(member, 2), 'r', 'tr')
end

-- What takes no others away, so that many are done before they are taken out of the set.
local GATHERED = { t = true, d = true }
local done
local function flush_done()
  flush_journals()
  in_pieces('ZREM', T .. ':z', done)
  done = emptied(done)
end

-- `may_be_gone`: what was done since it was read may have taken it away.
local function do_due(member, i, may_be_gone)
  local kind = sub(member, 1, 1)
  if not due[kind] then error('it is of no kind that happens at its time') end
  if not GATHERED[kind] then flush_done() end
  if may_be_gone and not call('ZSCORE', T .. ':z', member) then return end
  due[kind](member, i)
  done[#done + 1] = member
  if not GATHERED[kind] then flush_done() end
  changes = changes + 1
end

-- Takes a member away that cannot be done, or puts it off.
local function do_not(member, why)
  if Damage.is_refusal(why) then
    call('ZADD', T .. ':z', exactly + Damage.RETRY_MS, member)
    Damage.pass_over(T .. ':z', member, why)
  else
    call('ZREM', T .. ':z', member)
    Damage.set_aside(T .. ':z', member, why)
  end
  changes = changes + 1
end

local function fire_timers()
  while changes < budget do
    local until_now, most = string.format('%.3f', exactly), math.min(budget - changes, 500)
    local some = call('ZRANGE', T .. ':z', '-inf', until_now, 'BYSCORE', 'LIMIT', 0, most)
    if #some == 0 then return end
    local run_ended = false
    Touch.due(some)
    for i, member in ipairs(some) do
      local kind = sub(member, 1, 1)
      -- The end of a run takes away its tasks and the limits of its time, and leaves its timers to be found useless.
      local fine, why = pcall(do_due, member, i, run_ended and kind ~= 't')
      if not fine then do_not(member, why) end
      if kind == 'q' or kind == 'r' then run_ended = true end
    end
    flush_done()
  end
end

local function forget_trees()
  if changes >= budget then return end
  local most = math.min(budget - changes, 500)
  for _, root in ipairs(call('ZRANGE', T .. ':x', '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
    local fine, why = pcall(Roots.forget_tree, root)
    if fine or not Damage.is_refusal(why) then
      call('ZREM', T .. ':x', root)
      if not fine then Damage.set_aside(T .. ':x', root, why) end
    else
      call('ZADD', T .. ':x', now + Damage.RETRY_MS, root)
      Damage.pass_over(T .. ':x', root, why)
    end
    changes = changes + 1
  end
  changes = changes + purge(budget - changes)
end

-- Writes what was gathered.
local function write_gathered()
  flush_done()
  flush_all()
end

local function command()
  budget, changes, done = tonumber(ARGV[1]), 0, emptied(done)
  retention, conclude_call = tonumber(ARGV[2]), write_gathered
  local heard, sweeper = Clock.read(), call('HGET', T, 'sweeper')
  local back = Clock.settle(heard)
  if Clock.goes_back() then changes = changes + 1 end
  call('HSET', T, 'beat', now, 'swept', now, 'sweeper', ARGV[3])
  bury_sessions()
  fire_timers()
  changes = changes + teardown(budget - changes)
  forget_trees()
  call('ZREMRANGEBYSCORE', T .. ':f', '-inf', now)
  flush_all()
  local since = now - tonumber(heard[3] or 0)
  local just = since >= 0 and since <= JUST_MS and sweeper ~= ARGV[3]
  return { changes, changes >= budget and 0 or due_in(), just and 1 or 0, floor(back) }
end
