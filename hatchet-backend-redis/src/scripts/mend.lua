--! allow-oom
-- Mends what a check found; see fsck.rs.
-- ARGV: how, then its arguments. Each looks again whether there is something to mend.
-- Reply: 1 if it was mended, else 0.
local mend = {}

-- Arguments: the field of what was set aside.
function mend.bad(field)
  return call('HDEL', T .. ':bad', field)
end

-- Arguments: a member of the timers that names nothing.
function mend.timer(member)
  return call('ZREM', T .. ':z', member)
end

-- A clock that went back. Where that is more than a piece, the next sweeps go on.
function mend.clock()
  return Clock.settle(Clock.read()) > 0 and 1 or 0
end

-- Arguments: session, a field of its leases that names nothing.
function mend.lease(session, field)
  return call('HDEL', T .. ':l:' .. session, field)
end

-- Arguments: session, tid and token of a lease that the session holds and does not run.
function mend.disowned(session, tid, token)
  local leases = T .. ':l:' .. session
  local held = Lease.held(leases, tid)
  if not held or token_of(held) ~= token or result_of(rid_of(tid)) ~= false then return 0 end
  Run.give_back(tid, held, { recovered = true })
  Lease.drop(leases, tid)
  return 1
end

-- Argument: a session that would stay open after the end of its lease. It ends with its lease, unless it sends a heartbeat.
function mend.lease_end(session)
  if not alive(session) then return 0 end
  return call('ZADD', T .. ':s', 'XX', 'LT', 'CH', now + Damage.lease_of(session), session)
end

-- Arguments: J, number of an entry that waits for a signal and that nothing would give one.
function mend.signal(J, number)
  local rid = call('HGET', T .. ':j:' .. J, 'o')
  local chunk, at = chunk_of(J, tonumber(number))
  local stored = call('LINDEX', T .. ':e:' .. chunk, at)
  if not rid or result_of(rid) ~= false or not stored or call('HEXISTS', T .. ':E:' .. chunk, BYTE[at]) == 1 then return 0 end
  local name = Run.waits_in_vain(rid, J, tonumber(number), stored)
  if not name then return 0 end
  forget_waiter(rid, J, tonumber(number), stored)
  await_signal(rid, J, tonumber(number), name)
  return 1
end

-- Argument: journal of a parked task that nothing would wake. The task looks itself for what it waits for.
function mend.parked(J)
  return unpark(J) and 1 or 0
end

-- Arguments: queue, class, an element that names nothing, and in which list, as fsck.lua names it.
function mend.element(queue, class, element, which)
  return call('LREM', FanOut.list_named(queue, class, which), 1, element)
end

-- Arguments: queue, class, workflow, what takes turns among its large fan-outs and names no journal.
function mend.fan_out(queue, class, workflow, J)
  return call('LREM', FanOut.rotation(class, queue, workflow), 1, J)
end

-- Arguments: name of a list of work, an item that names nothing.
function mend.work(list, item)
  return call('LREM', T .. list, 1, item)
end

-- Arguments: uid of a listed root run that is not there.
function mend.root(rid)
  if result_of(rid) ~= nil then return 0 end
  Roots.forget(rid)
  return 1
end

-- Arguments: uid of a root run that is in a wrong list of those by how they ended.
function mend.list(rid)
  local score = call('ZSCORE', T .. ':a', rid)
  local kind = score and (call('HGET', T .. ':r:' .. rid, 'k') or 'u')
  return Roots.put_right(rid, score, kind) and 1 or 0
end

-- Arguments: the field of an idempotency key whose run is not there.
function mend.key(field)
  local rid = call('HGET', T .. ':d', field)
  if not rid or call('EXISTS', T .. ':r:' .. rid) == 1 then return 0 end
  return call('HDEL', T .. ':d', field)
end

-- Arguments: root of a tree that would be removed and is not there or has not ended.
function mend.forgotten(root)
  local stored = call('HMGET', T .. ':r:' .. root, 'w', 'L')
  if stored[1] and stored[2] == '0' then return 0 end
  return call('ZREM', T .. ':x', root)
end

-- Arguments: root of an ended tree that nothing removes, retention in ms.
function mend.kept(root, retention)
  if not result_of(root) or call('ZSCORE', T .. ':x', root) then return 0 end
  return call('ZADD', T .. ':x', now + tonumber(retention), root)
end

-- Arguments: rid of a run that ended and has limits of its time all the same.
function mend.limits(rid)
  if result_of(rid) == false then return 0 end
  return call('ZREM', T .. ':z', 'q' .. rid, 'r' .. rid)
end

-- Arguments: a counter of the queues or of what was set aside, as fsck.lua names it, by how much it is wrong.
function mend.counter(field, by)
  if byte(field, 1) == 97 then
    local queue, at = sunpack('>Bc0', field, 2)
    Aside.count(queue, sub(field, at), tonumber(by))
  else
    call('HINCRBY', T .. ':n', field, by)
  end
  return 1
end

-- Arguments: tid of a task of an unfinished run that is in no place. It is queued again, or delayed again.
function mend.task(tid)
  local rid, step = rid_of(tid), sub(tid, -2)
  if result_of(rid) ~= false or Run.holder_of(tid) then return 0 end
  local stored = call('HGET', T .. ':t:' .. rid, step) or 'R' .. spack('>I4I4', 1, 0)
  local phase, attempt, recoveries = sunpack('>c1I4I4', stored)
  if phase == 'X' or phase == 'P' then return 0 end
  local meta, J = entry_meta(entry_of(rid)), journal_of(rid, step)
  local flags = bor(RECORD, step == STEP0 and FIRST or 0, meta.detached and DETACHED or 0)
  if J and call('EXISTS', T .. ':j:' .. J) == 1 then flags = bor(flags, JOURNALED, RESUMED) end
  if call('ZSCORE', T .. ':z', 'r' .. rid) then flags = bor(flags, RUN_TIMED) end
  local tail = write_tail({
    flags = flags, prio = meta.prio, queue = meta.queue, attempt = attempt, recoveries = recoveries, claimed = 0,
    started = 0,
  })
  Touch.run(rid)
  Touch.queue(tail)
  materialise(rid)
  set_phase(rid, step, 'R', attempt, recoveries)
  make_ready(tail, element_of(tid, tail))
  return 1
end

local function command()
  local mended = mend[ARGV[1]](unpack(ARGV, 2))
  flush_all()
  return mended
end
