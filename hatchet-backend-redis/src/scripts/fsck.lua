--! no-writes
-- Reads a part of what a check of everything looks at; see fsck.rs, which puts the parts together.
-- ARGV: which part, then its arguments. Each part is bounded.
local function command()
  local reply, parts = {}, {}

  local function add(...)
    for i = 1, select('#', ...) do reply[#reply + 1] = (select(i, ...)) end
  end

  -- Reply: 1 while cancellations are under way, then the counters as pairs, and those of what was set aside, each named by
  -- 'a', the length of the queue, the queue and the workflow.
  function parts.counters()
    add(call('EXISTS', T .. ':k'), unpack(call('HGETALL', T .. ':n')))
    for _, queue in ipairs(call('SMEMBERS', T .. ':q')) do
      local aside = call('HGETALL', Aside.index(queue))
      for i = 1, #aside, 2 do add('a' .. BYTE[#queue] .. queue .. aside[i], aside[i + 1]) end
    end
  end

  -- Arguments: queue. Reply: the workflows of which something was set aside.
  function parts.aside(queue)
    return call('HKEYS', Aside.index(queue))
  end

  -- Reply: sessions that may hold leases.
  function parts.sessions()
    return holders()
  end

  -- Arguments: session, cursor, leases about a page. Reply: next cursor, then for each task: tid, queue.
  function parts.leases(session, cursor, some)
    local page = call('HSCAN', T .. ':l:' .. session, cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      Lease.each(page[2][i], page[2][i + 1], function(tid, held) add(tid, queue_of(tail_of(held))) end)
    end
  end

  -- Arguments: cursor, members about a page. Reply: next cursor, then for each delayed task: tid, queue.
  function parts.delayed(cursor, some)
    local page = call('ZSCAN', T .. ':z', cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      local member = page[2][i]
      if byte(member, 1) == 100 then
        local tid, tail = split_element(sub(member, 2))
        add(tid, queue_of(tail))
      end
    end
  end

  -- Reply: the names of queues.
  function parts.queues()
    return call('SMEMBERS', T .. ':q')
  end

  -- Arguments: queue, class, how many elements from the end were read, elements at most, workflow of what was set aside or
  -- ''. Reply: how many elements there were, then their tids. From the end, since elements are taken from the beginning
  -- meanwhile.
  function parts.ready(queue, class, read, some, workflow)
    local key = workflow == '' and list_key(queue, class) or Aside.list(class, queue, workflow)
    local elements = call('LRANGE', key, -read - some, -read - 1)
    add(#elements)
    for _, element in ipairs(elements) do
      each_task(workflow == '' and element or sub(element, 7), function(tid) add(tid) end)
    end
  end

  -- Arguments: score behind which to begin, runs at most. Reply: for each root run: uid, score.
  function parts.roots(after, some)
    return call('ZRANGE', T .. ':a', after, '+inf', 'BYSCORE', 'LIMIT', 0, some, 'WITHSCORES')
  end

  -- What is open in a run: 'N' if there is no such run, 'E' if it ended, else 'U'; then unfinished runs of a root run's
  -- tree or '', 1 if something will remove it, 1 if its time has a limit and nothing will end it or it has ended and
  -- something still would, uid, the steps with
  -- journals, its tasks as step and what is stored of it.
  local function run_of(rid)
    local record = call('HMGET', T .. ':r:' .. rid, 'U', 'j', 'L', 'tr', 'tq')
    local result = result_of(rid)
    local state = result == nil and 'N' or result and 'E' or 'U'
    local tasks, open, first_known = call('HGETALL', T .. ':t:' .. rid), {}, false
    for i = 1, #tasks, 2 do
      if #tasks[i] == 2 then
        if tasks[i] == STEP0 then first_known = true end
        if byte(tasks[i + 1], 1) ~= 88 then
          open[#open + 1] = tasks[i]
          open[#open + 1] = sub(tasks[i + 1], 1, 9)
        end
      end
    end
    if not first_known then
      open[#open + 1] = STEP0
      open[#open + 1] = 'R'
    end
    local goes = call('ZSCORE', T .. ':x', rid) and 1 or 0
    local ends = record[4] and call('ZSCORE', T .. ':z', 'r' .. rid)
    local expires = ends or record[5] and call('ZSCORE', T .. ':z', 'q' .. rid)
    local endless = (state == 'U' and record[4] and not ends or state == 'E' and expires) and 1 or 0
    return { state, record[3] or '', goes, endless, #rid == 16 and rid or record[1] or '', record[2] or '', open }
  end

  -- Arguments: rids. Reply: for each, what is open in it.
  function parts.runs(...)
    for _, rid in ipairs({ ... }) do add(run_of(rid)) end
  end

  -- Arguments: tids. Reply: for each, 1 if somebody leases it, and what is open in its run.
  function parts.tasks(...)
    for _, tid in ipairs({ ... }) do add(Run.holder_of(tid) and 1 or 0, run_of(rid_of(tid))) end
  end

  -- Argument: J. Reply: owner, children, unfinished, sequence, timers, chunks of each family, then if a task is parked:
  -- its tid, its queue, the sequence that wakes it, 1 if its time to wake is known.
  function parts.journal(J)
    local journal = call('HMGET', T .. ':j:' .. J, 'o', 'n', 'u', 'q', 'tm', 'k', 'p', 'pe')
    for i = 2, 6 do journal[i] = tonumber(journal[i] or 0) end
    add(journal[1] or '', journal[2], journal[3], journal[4], journal[5])
    add(call('LLEN', T .. ':b:' .. J), math.ceil(journal[6] / 64))
    if journal[7] then
      local tid, tail = split_element(journal[8])
      add(tid, queue_of(tail), (sunpack('>I4', journal[7])), call('ZSCORE', T .. ':z', 'p' .. J) and 1 or 0)
    end
  end

  -- Arguments: J, family, number of the chunk in its order, position in it. Reply: the position that comes next or -1,
  -- then for each child: rid, 1 if it ended, 1 if it is detached, 1 if it has a record; and for each open named entry:
  -- '', kind, 1 if a timer of it is set.
  function parts.chunk(J, family, number, from)
    local chunk = family == 'c' and call('LINDEX', T .. ':b:' .. J, number) or spack('>I4', number)
    add(-1)
    if not chunk then return end
    local room = 1048576
    local list, first = T .. ':' .. family .. ':' .. J .. chunk, (sunpack('>I4', chunk)) * 64
    local results = T .. ':' .. string.upper(family) .. ':' .. J .. chunk
    local ended = Result.positions(results)

    local function look_at(at)
      local slot, entry = stored_at(family, list, first, at)
      room = room - #entry
      if slot then
        local meta = entry_meta(entry)
        local rid = child_rid(J, slot, meta.generation)
        add(rid, ended[at] and 1 or 0, meta.detached and 1 or 0, call('EXISTS', T .. ':r:' .. rid))
      elseif not ended[at] then
        local _, _, rest = sunpack('>c1Hc0', entry)
        local timer = call('ZSCORE', T .. ':z', 't' .. J .. spack('>I4', first + at)) and 1 or 0
        add('', sub(entry, rest + 6, rest + 6), timer)
      end
    end

    for _, at in ipairs(positions_of(family, list)) do
      if room <= 0 then
        reply[1] = at
        return
      end
      if at >= tonumber(from) then look_at(at) end
    end
  end

  -- Arguments: J, cursor, runs about a page. Reply: next cursor, then the rid of each replaced generation that has a
  -- record.
  function parts.replaced(J, cursor, some)
    local page = call('HSCAN', T .. ':O:' .. J, cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      local rid = J .. page[2][i]
      if call('EXISTS', T .. ':r:' .. rid) == 1 then add(rid) end
    end
  end

  return parts[ARGV[1]](unpack(ARGV, 2)) or reply
end
