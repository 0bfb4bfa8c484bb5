--! allow-oom
-- Does what is due.
-- ARGV: changes at most, retention in ms
-- Reply: changes, ms until there is something to do again, -1 if nothing is known.
local function command()
  local budget = tonumber(ARGV[1])
  retention = tonumber(ARGV[2])
  local changes = 0

  -- A clock that went back must not keep the dead alive.
  local function settle_clock()
    local beat = tonumber(call('HGET', T, 'beat') or now)
    if now < beat - JUMP_MS then
      for _, session in ipairs(call('ZRANGE', T .. ':s', 0, -1)) do
        call('ZADD', T .. ':s', now + tonumber(call('HGET', T .. ':h:' .. session, 'lease')), session)
      end
    else
      forgive_jump()
    end
    call('HSET', T, 'beat', now)
  end

  local function bury_sessions()
    for _, session in ipairs(call('ZRANGE', T .. ':s', '-inf', '(' .. now, 'BYSCORE', 'LIMIT', 0, budget)) do
      fence(session, 'd')
      changes = changes + 1
    end
    for _, session in ipairs(call('HKEYS', T .. ':v')) do
      if changes >= budget then return end
      changes = changes + drain(session, call('HGET', T .. ':v', session), math.min(budget - changes, 1000))
    end
  end

  local due = {}

  function due.d(rest)
    local tid, tail = split_element(rest)
    local task = read_tail(tail)
    Touch.queue(tail)
    count('d', task.queue, -1)
    set_phase(rid_of(tid), sub(tid, -2), 'R', task.attempt, task.recoveries)
    make_ready(tail, rest)
  end

  function due.t(rest)
    fire(sub(rest, 1, 18), (sunpack('>I4', rest, 19)))
  end

  function due.p(J)
    unpark(J)
  end

  local function expire(rid, limit, field)
    if result_of(rid) ~= false then return end
    end_run(rid, 'e' .. limit .. call('HGET', T .. ':r:' .. rid, field))
  end

  function due.q(rid)
    expire(rid, 'q', 'tq')
  end

  function due.r(rid)
    expire(rid, 'r', 'tr')
  end

  local function fire_timers()
    while changes < budget do
      local some = call('ZRANGE', T .. ':z', '-inf', string.format('%.3f', exactly), 'BYSCORE', 'LIMIT', 0, math.min(budget - changes, 500))
      if #some == 0 then return end
      for _, member in ipairs(some) do
        -- Another one may have taken it away, as the end of a run takes its timers.
        if call('ZSCORE', T .. ':z', member) then
          due[sub(member, 1, 1)](sub(member, 2))
          call('ZREM', T .. ':z', member)
          flush_journals()
          changes = changes + 1
        end
      end
    end
  end

  local function forget_trees()
    if changes >= budget then return end
    for _, root in ipairs(call('ZRANGE', T .. ':x', '-inf', now, 'BYSCORE', 'LIMIT', 0, math.min(budget - changes, 500))) do
      call('ZREM', T .. ':x', root)
      forget_tree(root)
      changes = changes + 1
    end
    changes = changes + purge(budget - changes)
  end

  settle_clock()
  bury_sessions()
  fire_timers()
  changes = changes + teardown(budget - changes)
  forget_trees()
  call('ZREMRANGEBYSCORE', T .. ':f', '-inf', now)
  flush_all()
  return { changes, changes >= budget and 0 or due_in() }
end
