--! deny-oom
-- Writes entries into the journals of leased tasks.
-- ARGV: session, then for each write: tid length (1) tid token (12) uid (16) what the step knows (13) replace (1) due (1): 0 never, 1 after a time, 2 at a moment; that in ms (6) awaits a signal (1) length (2) and name
--   of the signal, length (2) and name of the entry, rest of the entry: kind (1) and what the client knows
-- Reply: for each write 'L', 'E', 'M', or {written, stored entry, resolution or ''}; a stored entry is: written at (6), kind
-- and the rest.
local session, leases

-- Timers that were set, gathered: moments and members in turns.
local timers
local function flush_timers()
  in_pieces('ZADD', T .. ':z', timers)
  timers = emptied(timers)
end

local function set_timer(J, number, due, millis)
  local timer = 't' .. J .. spack('>I4', number)
  timers[#timers + 1] = due == 1 and exactly + millis or millis
  timers[#timers + 1] = timer
  if due == 1 then Clock.note(millis, timer) end
end

-- What is held of a leased task, or nil and the refusal.
local function held_of(tid, token)
  local held = leases.held(tid)
  if not held or token_of(held) ~= token then return nil, Run.refusal(rid_of(tid)) end
  return held
end

-- The journal of a leased task and whether it is new.
local function journal_for(tid, held, uid)
  if band(flags_of(held), JOURNALED) ~= 0 then return uid .. sub(tid, -2), false end
  local J, is_new = open_journal(rid_of(tid), uid, sub(tid, -2), session)
  leases.put(tid, with_flags(held, bor(RECORD, JOURNALED)))
  return J, is_new
end

-- Children of which this call has made records, by their parents' journals.
local materialised
local function flush_materialised()
  for J, rids in pairs(materialised) do in_pieces('RPUSH', T .. ':M:' .. J, rids) end
  materialised = emptied(materialised)
end

-- Whether the first entry of a task may open its journal: it has none, and no more is known of a child than its entry.
local function may_open(tid, held)
  return band(flags_of(held), bor(JOURNALED, #tid > 18 and RECORD or 0)) == 0
end

-- The keys that must not be there for the writes of this call to open journals, five for each (the last is not there for a root run), and by
-- write where its own begin. `is_free`: whether none of them is there, which is asked for many at once.
local opened = {}
local function look_for_all(tids)
  local keys, starts, asked = {}, {}, 0
  opened.keys, opened.starts, opened.is_free = keys, starts, true
  for i, tid in ipairs(tids) do
    local held = leases.held(tid)
    if held and may_open(tid, held) then
      local J, n = sub(ARGV[i + 1], #tid + 14, #tid + 29) .. sub(tid, -2), #keys
      local chunk = chunk_of(J, 0)
      starts[i] = n
      keys[n + 1], keys[n + 2] = T .. ':j:' .. J, T .. ':x:' .. J
      keys[n + 3], keys[n + 4] = T .. ':e:' .. chunk, T .. ':E:' .. chunk
      keys[n + 5] = #tid > 18 and T .. ':r:' .. rid_of(tid) or keys[n + 1]
    end
  end
  while opened.is_free and asked < #keys do
    local upto = math.min(asked + 1000, #keys)
    opened.is_free = call('EXISTS', unpack(keys, asked + 1, upto)) == 0
    asked = upto
  end
end

-- The keys of the journal, its places, its first chunk and its run's record, if nothing is there; nil if there is.
local function free_keys(i)
  local keys, n = opened.keys, opened.starts[i]
  if not n or not opened.is_free and call('EXISTS', unpack(keys, n + 1, n + 5)) > 0 then return nil end
  return keys[n + 1], keys[n + 2], keys[n + 3], keys[n + 5]
end

-- Opens the journal of a task with its first entry, with as few commands as possible: what most timers and recorded calls come to. Whether
-- it did; it does nothing if there is something where the journal belongs, or if more is known of a child than its entry.
local function open_with(i, tid, held, uid, field, entry, timers_after)
  if not may_open(tid, held) then return false end
  local rid, journal, places, list, record = rid_of(tid), free_keys(i)
  if not journal then return false end
  local is_child = #rid > 16
  if not is_child then record = T .. ':r:' .. rid end
  local root = root_of(rid)
  if is_child then
    local parent = parent_journal(rid)
    if not materialised[parent] then
      Touch.list(':M:', parent)
      materialised[parent] = {}
    end
    local rids = materialised[parent]
    rids[#rids + 1] = rid
    call('HSET', record, 'v', 1, 'U', uid, 'j', sub(tid, -2))
  else
    call('HSET', record, 'U', uid, 'j', (call('HGET', record, 'j') or '') .. sub(tid, -2))
  end
  if timers_after then
    call('HSET', journal, 'o', rid, 'R', root, 's', session, 'k', 1, 'tm', timers_after)
  else
    call('HSET', journal, 'o', rid, 'R', root, 's', session, 'k', 1)
  end
  call('HSET', places, field, 0)
  call('RPUSH', list, entry)
  leases.put(tid, with_flags(held, bor(RECORD, JOURNALED)))
  return true
end

local function reply_for(written, stored, resolution)
  local _, _, at = sunpack('>c1Hc0', stored)
  return { written, sub(stored, at), resolution or '' }
end

-- Takes what an entry waits for away from it.
local function stop_waiting(rid, J, number, stored, results, at)
  flush_timers()
  drop_entry_timer(J, number)
  forget_waiter(rid, J, number, stored)
  call('HDEL', results, BYTE[at])
end

-- How many entries a journal has in its order, and how many timers are set.
local function counts_of(J)
  local counts = call('HMGET', T .. ':j:' .. J, 'k', 'tm')
  return tonumber(counts[1] or 0), tonumber(counts[2] or 0)
end

local function append(J, field, number, entry, timers_after)
  call('RPUSH', T .. ':e:' .. chunk_of(J, number), entry)
  call('HSET', T .. ':x:' .. J, field, number)
  if timers_after then
    call('HSET', T .. ':j:' .. J, 'k', number + 1, 'tm', timers_after)
  else
    call('HSET', T .. ':j:' .. J, 'k', number + 1)
  end
end

-- Writes an entry, the one with this number.
local function write(packed, i)
  local tid, token, uid, known, replace, due, millis, awaits, signal, name, at = sunpack('>Bc0c12c16c13BBI6BHc0Hc0', packed)
  local held, refused = held_of(tid, token)
  if not held then return refused end
  local rid, field, entry = rid_of(tid), 'n' .. name, spack('>c1Hc0', 'n', #name, name) .. now6 .. sub(packed, at)
  local place
  if known ~= Run.KNOWS_NOTHING then
    local J = uid .. sub(tid, -2)
    place = call('HGET', T .. ':x:' .. J, field)
    if not place and Run.knows_more(rid, J, known) then return 'M' end
  end
  local is_first = not place and (known == Run.KNOWS_NOTHING or known == Run.KNOWS_STATE)
  if is_first and awaits == 0 and open_with(i, tid, held, uid, field, entry, due > 0 and 1) then
    if due > 0 then set_timer(uid .. sub(tid, -2), 0, due, millis) end
    return reply_for(1, entry)
  end
  local J, is_new = journal_for(tid, held, uid)
  if awaits == 1 then Touch.signal(rid, signal) end
  local number, set = 0, 0
  if place == nil then place = call('HGET', T .. ':x:' .. J, field) end
  if place then
    number = tonumber(place)
  elseif not is_new then
    number, set = counts_of(J)
  end
  local chunk, position = chunk_of(J, number)
  local list, results = T .. ':e:' .. chunk, T .. ':E:' .. chunk
  call('HLEN', results)
  if place then
    local stored = call('LINDEX', list, TEXT[position])
    if replace == 0 then return reply_for(0, stored, call('HGET', results, BYTE[position])) end
    stop_waiting(rid, J, number, stored, results, position)
    call('LSET', list, TEXT[position], entry)
    if due > 0 then call('HINCRBY', T .. ':j:' .. J, 'tm', 1) end
  else
    append(J, field, number, entry, due > 0 and set + 1)
  end
  if due > 0 then set_timer(J, number, due, millis) end
  if awaits == 0 then return reply_for(1, entry) end
  flush_timers()
  await_signal(rid, J, number, signal)
  flush_journals()
  return reply_for(1, entry, call('HGET', results, BYTE[position]))
end

-- Writes what was gathered.
local function write_gathered()
  leases.flush()
  flush_materialised()
  flush_timers()
  flush_all()
end

local function command()
  session, timers, materialised = ARGV[1], emptied(timers), emptied(materialised)
  if not alive(session) then return session_lost() end
  local tids, reply = {}, {}
  for i = 2, #ARGV do tids[i - 1] = (sunpack('>Bc0', ARGV[i])) end
  leases, conclude_call = Lease.batch(T .. ':l:' .. session, tids), write_gathered
  look_for_all(tids)
  for i = 2, #ARGV do reply[i - 1] = write(ARGV[i], i - 1) end
  write_gathered()
  return reply
end
