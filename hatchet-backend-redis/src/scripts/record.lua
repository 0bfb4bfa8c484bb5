--! deny-oom
-- Writes entries into the journals of leased tasks.
-- ARGV: session, then for each write: tid length (1) tid token (12) uid (16) replace (1) due (1): 0 never, 1 after a
-- time, 2 at a moment; that in ms (6) awaits a signal (1) length (2)
--   and name of the signal, length (2) and name of the entry, rest of the entry: kind (1) and what the client knows
-- Reply: for each write 'L', 'E', or {written, stored entry, resolution or ''}; a stored entry is: written at (6), kind
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

-- Opens the journal of a task with its first entry, with as few commands as possible: what most timers and recorded calls come to. Whether
-- it did; it does nothing if there is something where the journal belongs, or if more is known of a child than its entry.
local function open_with(tid, held, uid, field, entry, timers_after)
  local rid, J = rid_of(tid), uid .. sub(tid, -2)
  local record, is_child = T .. ':r:' .. rid, #rid > 16
  if band(flags_of(held), bor(JOURNALED, is_child and RECORD or 0)) ~= 0 then return false end
  local journal, places, chunk = T .. ':j:' .. J, T .. ':x:' .. J, chunk_of(J, 0)
  local list = T .. ':e:' .. chunk
  if call('EXISTS', journal, places, list, T .. ':E:' .. chunk, is_child and record or journal) > 0 then return false end
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

local function write(packed)
  local tid, token, uid, replace, due, millis, awaits, signal, name, at = sunpack('>Bc0c12c16BBI6BHc0Hc0', packed)
  local held, refused = held_of(tid, token)
  if not held then return refused end
  local rid, field, entry = rid_of(tid), 'n' .. name, spack('>c1Hc0', 'n', #name, name) .. now6 .. sub(packed, at)
  if awaits == 0 and open_with(tid, held, uid, field, entry, due > 0 and 1) then
    if due > 0 then set_timer(uid .. sub(tid, -2), 0, due, millis) end
    return reply_for(1, entry)
  end
  local J, is_new = journal_for(tid, held, uid)
  if awaits == 1 then Touch.signal(rid, signal) end
  local known, number, set = call('HGET', T .. ':x:' .. J, field), 0, 0
  if known then
    number = tonumber(known)
  elseif not is_new then
    number, set = counts_of(J)
  end
  local chunk, position = chunk_of(J, number)
  local list, results = T .. ':e:' .. chunk, T .. ':E:' .. chunk
  call('HLEN', results)
  if known then
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
  for i = 2, #ARGV do reply[i - 1] = write(ARGV[i]) end
  write_gathered()
  return reply
end
