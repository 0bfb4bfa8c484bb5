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
