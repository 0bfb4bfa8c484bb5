--! no-writes
-- Reads a part of what a check of everything looks at; see fsck.rs, which puts the parts together.
-- ARGV: which part, then its arguments. Each part is bounded. A part that cannot be read answers '\0!' and why. Where a reply
-- is a list of names, '\0!' stands for one that cannot be read; what is stored there or why comes behind it.
local function command()
  local reply, parts = {}, {}

  -- What is wrong with what is stored. That the server refuses the call as a whole is not, and ends it.
  local function said(why)
    return Damage.is_refusal(why) and type(why) == 'table' and why.err or why
  end

  local function add(...)
    for i = 1, select('#', ...) do reply[#reply + 1] = (select(i, ...)) end
  end

  -- Reply: 1 while cancellations are under way, how many root runs there are, then the counters as pairs, and those of what was set aside, each named by
  -- 'a', the length of the queue, the queue and the workflow.
  function parts.counters()
    add(call('EXISTS', T .. ':k'), call('ZCARD', T .. ':a'), unpack(call('HGETALL', T .. ':n')))
    for _, queue in ipairs(call('SMEMBERS', T .. ':q')) do
      local aside = call('HGETALL', Aside.index(queue))
      for i = 1, #aside, 2 do add('a' .. BYTE[#queue] .. queue .. aside[i], aside[i + 1]) end
    end
  end

  -- Reply: 1 if the clock went back and nobody has done anything about it.
  function parts.clock()
    local heard = Clock.read()
    add((Clock.change(heard) < 0 or heard[6] or Clock.came_back(heard[4])) and 1 or 0)
  end

  -- Arguments: queue. Reply: the workflows of which something was set aside.
  function parts.aside(queue)
    return call('HKEYS', Aside.index(queue))
  end

  -- Reply: sessions that may hold leases.
  function parts.sessions()
    return holders()
  end

  -- Arguments: session, cursor, leases about a page, an age in ms. Reply: next cursor, then for each task: tid, queue, 1 if it has been
  -- leased for that long.
  function parts.leases(session, cursor, some, old)
    local page = call('HSCAN', T .. ':l:' .. session, cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      local fine = pcall(Lease.each, page[2][i], page[2][i + 1], function(tid, held)
        Damage.checked_element(element_of(tid, tail_of(held)))
        add(tid, queue_of(tail_of(held)), now - sunpack('>I6', held, 13) >= tonumber(old) and 1 or 0)
      end)
      if not fine then add('\0!', page[2][i], 0) end
    end
  end

  -- Arguments: session, number of a question. Reply: 1 if the session has answered that or is over, then for each lease that it does not
  -- run and still holds: tid, token.
  function parts.disowned(session, number)
    if tonumber(call('ZSCORE', T .. ':s', session) or 0) < now then return { 1 } end
    local stored = call('HGET', T .. ':h:' .. session, 'disowned')
    if not stored or sunpack('>I6', stored) < tonumber(number) then return { 0 } end
    add(1)
    local at = 7
    while at <= #stored do
      local tid, token
      tid, token, at = sunpack('>Bc0c12', stored, at)
      local held = Lease.held(T .. ':l:' .. session, tid)
      if held and token_of(held) == token then add(tid, token) end
    end
  end

  -- Whether a member of the timers names what it may; of a delayed task its tid and its queue are added.
  local function read_timer(member)
    local kind, rest = sub(member, 1, 1), sub(member, 2)
    if kind == 'd' then
      local tid, tail = Damage.checked_element(rest)
      add(tid, queue_of(tail))
      return true
    end
    return kind == 't' and #rest == 22 or kind == 'p' and #rest == 18 or (kind == 'q' or kind == 'r') and Damage.is_rid(rest)
  end

  -- Arguments: cursor, members about a page. Reply: next cursor, then for each delayed task: tid, queue.
  function parts.delayed(cursor, some)
    local page = call('ZSCAN', T .. ':z', cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      local fine, known = pcall(read_timer, page[2][i])
      if not fine or not known then add('\0!', page[2][i]) end
    end
  end

  -- Arguments: cursor, fields about a page. Reply: next cursor, then for each value that calls could not work on: the key and
  -- the value as one field, and the moment, a mark and the reason.
  function parts.bad(cursor, some)
    local page = call('HSCAN', T .. ':bad', cursor, 'COUNT', some)
    add(page[1], unpack(page[2]))
  end

  -- Arguments: cursor, fields about a page. Reply: next cursor, then for each idempotency key whose run is not there: its
  -- field.
  function parts.keys(cursor, some)
    local page = call('HSCAN', T .. ':d', cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      if call('EXISTS', T .. ':r:' .. page[2][i + 1]) == 0 then add(page[2][i]) end
    end
  end

  -- Arguments: cursor, members about a page. Reply: next cursor, then for each tree that would be removed and is not there
  -- or has not ended: its root, 1 if it is there.
  function parts.forgotten(cursor, some)
    local page = call('ZSCAN', T .. ':x', cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      local stored = call('HMGET', T .. ':r:' .. page[2][i], 'w', 'L')
      if not stored[1] or stored[2] ~= '0' then add(page[2][i], stored[1] and 1 or 0) end
    end
  end

  -- Reply: for each list of work under way: its name, and items that name nothing.
  function parts.work()
    for _, item in ipairs(call('LRANGE', T .. ':k', 0, 999)) do
      local family = sub(item, 19, 19)
      if #item < 23 or family ~= 'c' and family ~= 'e' then add(':k', item) end
    end
    for _, item in ipairs(call('LRANGE', T .. ':p', 0, 999)) do
      local kind, rest = sub(item, 1, 1), sub(item, 2)
      if not (kind == 'r' and Damage.is_rid(rest) or kind == 'j' and #rest == 18) then add(':p', item) end
    end
  end

  -- Reply: for each open session that lacks its record, or would stay open after the end of its lease: its id, 1 in the second case.
  function parts.strangers()
    local SLACK_MS, open = 60000, call('ZRANGE', T .. ':s', 0, -1, 'WITHSCORES')
    for i = 1, #open, 2 do
      local session = open[i]
      local lease = #session == 16 and tonumber(call('HGET', T .. ':h:' .. session, 'lease') or '')
      if not lease or tonumber(open[i + 1]) > now + lease + SLACK_MS then add(session, lease and 1 or 0) end
    end
  end

  -- Reply: for each key of the partition that holds another type: its name, the type.
  function parts.types()
    local kinds = { [T] = 'hash', [T .. ':D'] = 'hash' }
    if call('EXISTS', T) == 0 then add(T, 'none') end
    for suffix, kind in pairs(Damage.OWN) do kinds[T .. ':' .. suffix] = kind end
    for minute = floor(now / 60000) - Roots.KEPT_S / 60, floor(now / 60000) do kinds[T .. ':N:' .. minute] = 'hash' end
    for _, session in ipairs(call('ZRANGE', T .. ':s', 0, -1)) do
      for name, kind in pairs({ h = 'hash', l = 'hash', i = 'list', m = 'list' }) do
        kinds[T .. ':' .. name .. ':' .. session] = kind
      end
    end
    for _, queue in ipairs(call('SMEMBERS', T .. ':q')) do
      kinds[T .. ':y:' .. queue] = 'zset'
      kinds[Aside.index(queue)] = 'hash'
      for _, workflow in ipairs(call('HKEYS', Aside.index(queue))) do
        for class = 0, 5 do kinds[Aside.list(TEXT[class], queue, workflow)] = 'list' end
      end
      for _, key in ipairs(list_keys(queue)) do kinds[key] = 'list' end
      for class = 3, 5 do
        local class = TEXT[class]
        local names = FanOut.workflows(class, queue)
        kinds[names] = 'list'
        for _, workflow in ipairs(call('TYPE', names).ok == 'list' and call('LRANGE', names, 0, 999) or {}) do
          kinds[FanOut.rotation(class, queue, workflow)] = 'list'
        end
      end
    end
    for key, kind in pairs(kinds) do
      local found = call('TYPE', key).ok
      if found ~= 'none' and found ~= kind then add(key, found) end
    end
  end

  -- Reply: the names of queues.
  function parts.queues()
    return call('SMEMBERS', T .. ':q')
  end

  -- Arguments: queue, class. Reply: the workflows of which large fan-outs take turns.
  function parts.fan_outs(queue, class)
    return call('LRANGE', FanOut.workflows(class, queue), 0, -1)
  end

  -- Arguments: queue, class, workflow, how many were read, how many at most. Reply: the journals of those that take turns.
  function parts.rotation(queue, class, workflow, read, some)
    return call('LRANGE', FanOut.rotation(class, queue, workflow), read, read + some - 1)
  end

  -- Arguments: queue, class, how many elements from the end were read, elements at most, which list: '' the queue's own, 'a' and
  -- a workflow what was set aside of it, 'f' and J and a workflow a large fan-out. Reply: how many elements there were, then their
  -- tids. From the end, since elements are taken from the beginning meanwhile.
  function parts.ready(queue, class, read, some, which)
    local head = byte(which, 1) == 97 and 6 or 0
    local elements = call('LRANGE', FanOut.list_named(queue, class, which), -read - some, -read - 1)
    add(#elements)
    for _, element in ipairs(elements) do
      local fine = pcall(each_task, sub(element, head + 1), function(tid, tail)
        Damage.checked_element(element_of(tid, tail))
        add(tid)
      end)
      if not fine then add('\0!', element) end
    end
  end

  -- Arguments: score behind which to begin, runs at most. Reply: for each root run: uid, score.
  function parts.roots(after, some)
    return call('ZRANGE', T .. ':a', after, '+inf', 'BYSCORE', 'LIMIT', 0, some, 'WITHSCORES')
  end

  -- Arguments: cursor, runs about a page. Reply: next cursor, then the uid of each root run that is not in the list of those that
  -- ended as it did.
  function parts.unlisted(cursor, some)
    local page = call('ZSCAN', T .. ':a', cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      local root, score = page[2][i], page[2][i + 1]
      local record = call('HMGET', T .. ':r:' .. root, 'w', 'k')
      local kind = record[2] or 'u'
      if record[1] and kind ~= 's' then
        local listed = call('ZSCORE', T .. ':a:' .. kind, root)
        if tonumber(listed or '') ~= tonumber(score) then add(root) end
      end
    end
  end

  -- Arguments: how they ended, cursor, runs about a page. Reply: next cursor, then the uid of each root run in that list that did not
  -- end so.
  function parts.mislisted(kind, cursor, some)
    local page = call('ZSCAN', T .. ':a:' .. kind, cursor, 'COUNT', some)
    add(page[1])
    for i = 1, #page[2], 2 do
      local record = call('HMGET', T .. ':r:' .. page[2][i], 'w', 'k')
      if not record[1] or (record[2] or 'u') ~= kind then add(page[2][i]) end
    end
  end

  -- Whether what else is kept of a run can be read at all.
  local function check_beside(rid)
    call('HLEN', T .. ':u:' .. rid)
    for _, field in ipairs(call('HKEYS', T .. ':g:' .. rid)) do
      if byte(field, 1) == 110 then
        call('LLEN', signal_key('gw', rid, sub(field, 2)))
        call('LLEN', signal_key('gm', rid, sub(field, 2)))
      end
    end
  end

  local function check_run(rid, result, record)
    check_beside(rid)
    if result and #result < 17 then error('its end is cut short') end
    local entry = entry_of(rid)
    if not entry then error('its entry is not there') end
    local head, after = sunpack('>I4', entry, 13 + byte(entry, 12))
    if head > #entry - after + 1 then error('its entry is cut short') end
    if #rid == 16 and not tonumber(record[3] or '') then error('the number of its unfinished runs is not there') end
    if #(record[2] or '') % 2 == 1 then error('its journals are not named') end
    if record[2] and #rid > 16 and #(record[1] or '') ~= 16 then error('its record does not say who it is') end
  end

  -- What is open in a run: 'N' if there is no such run, 'E' if it ended, else 'U'; then unfinished runs of a root run's
  -- tree or '', 1 if something will remove it, 1 if its time has a limit and nothing will end it or it has ended and
  -- something still would, uid, the steps with
  -- journals, its tasks as step and what is stored of it.
  local function run_of(rid)
    local record = call('HMGET', T .. ':r:' .. rid, 'U', 'j', 'L', 'tr', 'tq')
    local result = result_of(rid)
    if result ~= nil then check_run(rid, result, record) end
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
    for _, rid in ipairs({ ... }) do
      local fine, run = pcall(run_of, rid)
      if not fine then run = { 'B', said(run) } end
      add(run)
    end
  end

  -- Arguments: tids. Reply: for each, 1 if somebody leases it, and what is open in its run.
  function parts.tasks(...)
    for _, tid in ipairs({ ... }) do
      local fine, run = pcall(run_of, rid_of(tid))
      local known, holder = pcall(Run.holder_of, tid)
      add(known and not holder and 0 or 1, fine and run or { 'B', said(run) })
    end
  end

  -- Argument: J. Reply: owner, children, unfinished, sequence, timers, chunks of each family, records of children, then if a task is parked:
  -- its tid, its queue, the sequence that wakes it, 1 if its time to wake is known, 1 if the failure of a child wakes it.
  function parts.journal(J)
    call('HLEN', T .. ':x:' .. J)
    local journal = call('HMGET', T .. ':j:' .. J, 'o', 'n', 'u', 'q', 'tm', 'k', 'p', 'pe')
    for i = 2, 6 do journal[i] = tonumber(journal[i] or 0) end
    add(journal[1] or '', journal[2], journal[3], journal[4], journal[5])
    add(call('LLEN', T .. ':b:' .. J), math.ceil(journal[6] / 64), call('LLEN', T .. ':M:' .. J))
    if journal[7] then
      local tid, tail = split_element(journal[8])
      local at_sequence, on_failure = sunpack('>I4B', journal[7])
      add(tid, queue_of(tail), at_sequence, call('ZSCORE', T .. ':z', 'p' .. J) and 1 or 0, on_failure)
    end
  end

  -- Arguments: J, family, number of the chunk in its order, position in it. Reply: the position that comes next or -1,
  -- then for each child: rid, 1 if it ended, 1 if it is detached, 1 if it has a record; and for each open named entry:
  -- '', kind, 1 if a timer of it is set, its number, 1 if it waits for a signal and nothing would give it one.
  function parts.chunk(J, family, number, from)
    local chunk = family == 'c' and call('LINDEX', T .. ':b:' .. J, number) or spack('>I4', number)
    add(-1)
    if not chunk then return end
    local room = 1048576
    local list, first = T .. ':' .. family .. ':' .. J .. chunk, (sunpack('>I4', chunk)) * 64
    local results = T .. ':' .. string.upper(family) .. ':' .. J .. chunk
    local ended, owner = Result.positions(results), nil

    local function look_at(at)
      local slot, entry = stored_at(family, list, first, at)
      if ended[at] then
        local result = Result.read(results, at)
        if not result or #result < 17 then error('a result is cut short') end
      end
      room = room - #entry
      if slot then
        local meta = entry_meta(entry)
        local rid = child_rid(J, slot, meta.generation)
        if meta.generation > 0 then
          local before = sub(child_rid(J, slot, meta.generation - 1), 19)
          if call('HEXISTS', T .. ':O:' .. J, before) == 0 then error('an earlier generation is not there') end
        end
        add(rid, ended[at] and 1 or 0, meta.detached and 1 or 0, call('EXISTS', T .. ':r:' .. rid))
      elseif not ended[at] then
        local _, _, rest = sunpack('>c1Hc0', entry)
        local timer = call('ZSCORE', T .. ':z', 't' .. J .. spack('>I4', first + at)) and 1 or 0
        owner = owner or call('HGET', T .. ':j:' .. J, 'o') or ''
        local in_vain = owner ~= '' and Run.waits_in_vain(owner, J, first + at, entry) and 1 or 0
        add('', sub(entry, rest + 6, rest + 6), timer, first + at, in_vain)
      end
    end

    for _, at in ipairs(positions_of(family, list)) do
      if room <= 0 then
        reply[1] = at
        return
      end
      if at >= tonumber(from) then
        local fine, why = pcall(look_at, at)
        if not fine then add('\0!', said(why)) end
      end
    end
  end

  -- Arguments: J, number of the first, records at most. Reply: how many were looked at, then the rids of those that are not
  -- there.
  function parts.records(J, from, some)
    local rids = call('LRANGE', T .. ':M:' .. J, from, from + some - 1)
    add(#rids)
    for _, rid in ipairs(rids) do
      if call('EXISTS', T .. ':r:' .. rid) == 0 then add(rid) end
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

  local fine, answer = pcall(parts[ARGV[1]], unpack(ARGV, 2))
  if not fine then return { '\0!', said(answer) } end
  return answer or reply
end
