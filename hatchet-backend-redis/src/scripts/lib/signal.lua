-- Signals of a run: those kept, the entries that wait, and the ids that came.
--
--   T:g:rid          hash: 'i' id -> 1 for each that came, 'n' name -> 1 for each name with a list, 'm' -> names of which some
--                    were kept when it was written last
--   T:gw:rid name    list of waiting entries: J, number (4)
--   T:gm:rid name    list of payloads that nobody waited for
local function signal_key(what, rid, name)
  return T .. ':' .. what .. ':' .. char(#rid) .. rid .. name
end

do
  local Unread, MOST_NAMES = Run.unread, 20

  -- The names that are noted of a run, and how many signals of each are kept, as far as there are some.
  local function kept(rid)
    local noted, names, numbers, at = call('HGET', T .. ':g:' .. rid, 'm') or '', {}, {}, 1
    while at <= #noted do
      local name
      name, at = sunpack('>Hc0', noted, at)
      local number = call('LLEN', signal_key('gm', rid, name))
      if number > 0 then names[#names + 1], numbers[#numbers + 1] = name, number end
    end
    return names, numbers
  end

  -- Stands among those who watch a run: its end is to be looked at.
  Unread.MARK = NEVER6 .. NEVER6 .. '\0\0\0\0'

  -- Keeps a signal for the entry that will take it, and has the end of the run tell if none does.
  function Unread.keep(rid, name, payload)
    if call('RPUSH', signal_key('gm', rid, name), payload) > 1 then return end
    local names, noted = kept(rid), {}
    if #names == MOST_NAMES then return end
    for _, other in ipairs(names) do
      if other ~= name then noted[#noted + 1] = spack('>Hc0', #other, other) end
    end
    call('HSET', T .. ':g:' .. rid, 'm', table.concat(noted) .. spack('>Hc0', #name, name))
    local watchers = call('HGET', T .. ':o', rid) or ''
    for at = 1, #watchers, 16 do
      if sub(watchers, at, at + 15) == Unread.MARK then return end
    end
    call('HSET', T .. ':o', rid, watchers .. Unread.MARK)
  end

  -- The session that commits, else one that is open.
  local function listener()
    return Unread.committer or call('ZRANGE', T .. ':s', now, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  end

  -- Tells one session which kept signals of an ended run nobody has taken.
  function Unread.report(rid)
    local names, numbers = kept(rid)
    local session = #names > 0 and listener()
    if not session then return end
    local event = { 'S', char(#rid), rid }
    for i, name in ipairs(names) do event[#event + 1] = spack('>I4Hc0', numbers[i], #name, name) end
    notify(session, table.concat(event), true)
  end
end

local function name_of(stored)
  return (select(2, sunpack('>c1Hc0', stored)))
end

local function resolve_named(J, number, rest)
  local chunk, at = chunk_of(J, number)
  local results = T .. ':E:' .. chunk
  if call('HEXISTS', results, BYTE[at]) == 1 then return false end
  local stored = call('LINDEX', T .. ':e:' .. chunk, at)
  if not stored then return false end
  resolve(J, results, at, 'n' .. name_of(stored), NEVER6 .. now6, rest, false)
  return true
end

local forget_waiter
do
  -- The signal that a stored entry waits for; nil if it is none.
  local function awaited(stored)
    local _, _, at = sunpack('>c1Hc0', stored)
    if byte(stored, at + 6) ~= 115 then return nil end
    return (sunpack('>Hc0', stored, at + 7))
  end

  function forget_waiter(rid, J, number, stored)
    local name = awaited(stored)
    if name then call('LREM', signal_key('gw', rid, name), 1, J .. spack('>I4', number)) end
  end

  -- The signal that an open entry waits for, if nothing would give it one: the entry is not among those that wait, or one is kept; nil
  -- otherwise, and if its step is over.
  function Run.waits_in_vain(rid, J, number, stored)
    local name, waiter, MOST = awaited(stored), J .. spack('>I4', number), 1000
    if name and byte(call('HGET', T .. ':t:' .. rid, sub(J, -2)) or 'R', 1) == 88 then return nil end
    if not name or call('LLEN', signal_key('gm', rid, name)) > 0 then return name end
    local waiting = call('LRANGE', signal_key('gw', rid, name), 0, MOST - 1)
    for _, other in ipairs(waiting) do
      if other == waiter then return nil end
    end
    return #waiting < MOST and name or nil
  end
end

local function drop_entry_timer(J, number)
  if call('ZREM', T .. ':z', 't' .. J .. spack('>I4', number)) == 1 then call('HINCRBY', T .. ':j:' .. J, 'tm', -1) end
end

function Touch.signal(rid, name)
  Touch.run(rid)
  Touch.hash(':g:', rid)
  call('LLEN', signal_key('gw', rid, name))
  call('LLEN', signal_key('gm', rid, name))
end

-- An entry that was just written waits for a signal, or takes one that came before.
local function await_signal(rid, J, number, name)
  local kept = call('LPOP', signal_key('gm', rid, name))
  if kept then
    drop_entry_timer(J, number)
    resolve_named(J, number, 'g' .. kept)
  else
    materialise(rid)
    call('HSET', T .. ':g:' .. rid, 'n' .. name, 1)
    call('RPUSH', signal_key('gw', rid, name), J .. spack('>I4', number))
  end
end

local fire
do
  -- Whether a run has not ended. The journal of one that has is held by nobody, and nothing is parked there.
  local function goes_on(rid, group)
    return group.holder or group.task or result_of(rid) == false
  end

  -- The time of a timer or of an awaited signal is up. Nothing but timers may fire until this is flushed. `journal`: what is stored of its
  -- journal, if that was read. `is_unresolved`: whether it is known that nothing is resolved
  -- in its chunk.
  local function fire_one(J, number, journal, is_unresolved)
    local group = group_of(J, journal)
    if not group.owner then return end
    local chunk, at = chunk_of(J, number)
    local results, owner = T .. ':E:' .. chunk, group.owner
    local is_resolved = not is_unresolved and call('HEXISTS', results, BYTE[at]) == 1
    local stored = call('LINDEX', T .. ':e:' .. chunk, TEXT[at])
    local open = stored and goes_on(owner, group)
    local name = open and name_of(stored)
    if open then forget_waiter(owner, J, number, stored) end
    group.fired = group.fired + 1
    if not open or is_resolved then return end
    Places.remember(owner, J)
    known_piece(group, results)
    resolve(J, results, at, 'n' .. name, NEVER6 .. now6, 't', false)
  end

  -- Members of the set of what is due, and of those that are timers: journal, chunk, hash of resolutions, whether that is not there.
  local members, journals, chunks, results, is_new = {}, {}, {}, {}, {}
  -- The end of the event of the latest timer, and what it is of.
  local latest

  -- Looks at what is due, before any of it is done.
  function Touch.due(some)
    members, journals, chunks, results, is_new = some, {}, {}, {}, {}
    latest = { value = NEVER6 .. now6 .. 't' }
    local keys, places = {}, {}
    for i, member in ipairs(some) do
      if byte(member, 1) == 116 and #member == 23 then
        local J = sub(member, 2, 19)
        local chunk = chunk_of(J, (sunpack('>I4', member, 20)))
        local key = T .. ':E:' .. chunk
        journals[i], chunks[i], results[i] = J, chunk, key
        keys[#keys + 1], places[#keys + 1] = key, i
      end
    end
    Touch.mark_absent(keys, places, is_new)
  end

  local function fired_event(J, owner, name, sequence)
    if latest.name ~= name or latest.sequence ~= sequence then
      local value, key = spack('>I4', sequence) .. latest.value, 'n' .. name
      latest.name, latest.sequence, latest.stored = name, sequence, value
      latest.item = spack('>Hc0I4', #key, key, #value) .. value
    end
    return 'R' .. J .. BYTE[#owner] .. owner .. latest.item
  end

  -- Fires a timer at once, whose journal somebody holds, and in whose chunk nothing was resolved before this call: what most timers come to.
  -- Whether it did; nothing was changed if not.
  local function fire_alone(i, J, number, journal)
    local holder, owner = journal[3], journal[5]
    if not holder or not owner or journal[2] then return false end
    local at = number % 64
    local stored = call('LINDEX', T .. ':e:' .. chunks[i], TEXT[at])
    if not stored then return false end
    local _, name, after = sunpack('>c1Hc0', stored)
    -- It waits for a signal, too.
    if byte(stored, after + 6) == 115 then return false end
    local sequence, left = tonumber(journal[1] or 0) + 1, tonumber(journal[8] or 0) - 1
    local event = fired_event(J, owner, name, sequence)
    call('HSET', results[i], BYTE[at], latest.stored)
    call('HSET', T .. ':j:' .. J, 'q', TEXT[sequence] or sequence, 'tm', TEXT[left] or left)
    notify(holder, event, true)
    Places.remember(owner, J)
    return true
  end

  -- Fires the timer that is one of the members that were looked at.
  function fire(i)
    local J, number = journals[i], (sunpack('>I4', members[i], 20))
    if resolved[J] then return fire_one(J, number, nil, is_new[i]) end
    local journal = Places.read_journal(J)
    if is_new[i] and fire_alone(i, J, number, journal) then return end
    fire_one(J, number, journal, is_new[i])
  end
end
