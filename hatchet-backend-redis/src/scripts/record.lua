--! deny-oom
-- Writes entries into the journals of leased tasks.
-- ARGV: session, then for each write: tid length (1) tid token (12) uid (16) replace (1) timed (1) wait in ms (6)
-- awaits a signal (1) length (2)
--   and name of the signal, length (2) and name of the entry, rest of the entry: kind (1) and what the client knows
-- Reply: for each write 'L', 'E', or {written, stored entry, resolution or ''}; a stored entry is: written at (6), kind
-- and the rest.
local function command()
  local session = ARGV[1]
  if not alive(session) then return session_lost() end
  local leases_key = T .. ':l:' .. session

  -- The journal of a leased task, or nil and the refusal.
  local function journal_for(tid, token, uid)
    local held = Lease.held(leases_key, tid)
    if not held or token_of(held) ~= token then return nil, refusal(rid_of(tid)) end
    if band(flags_of(held), JOURNALED) ~= 0 then return uid .. sub(tid, -2) end
    local J = open_journal(rid_of(tid), uid, sub(tid, -2), session)
    Lease.put(leases_key, tid, with_flags(held, bor(RECORD, JOURNALED)))
    return J
  end

  local function reply_for(written, stored, resolution)
    local _, _, at = sunpack('>c1Hc0', stored)
    return { written, sub(stored, at), resolution or '' }
  end

  -- Takes what an entry waits for away from it.
  local function stop_waiting(rid, J, number, stored, results, at)
    drop_entry_timer(J, number)
    forget_waiter(rid, J, number, stored)
    call('HDEL', results, BYTE[at])
  end

  for i = 2, #ARGV do
    local tid, token, uid, replace, timed, wait, awaits, signal, name, at = sunpack('>Bc0c12c16BBI6BHc0Hc0', ARGV[i])
    local J, refused = journal_for(tid, token, uid)
    if not J then
      ARGV[i] = refused
    else
      if awaits == 1 then Touch.signal(rid_of(tid), signal) end
      local rid, journal, field = rid_of(tid), T .. ':j:' .. J, 'n' .. name
      local number = tonumber(call('HGET', T .. ':x:' .. J, field) or -1)
      local known = number >= 0
      if not known then number = tonumber(call('HGET', journal, 'k') or 0) end
      local chunk, position = chunk_of(J, number)
      local list, results = T .. ':e:' .. chunk, T .. ':E:' .. chunk
      call('HLEN', results)
      local stored = known and call('LINDEX', list, position)
      if known and replace == 0 then
        ARGV[i] = reply_for(0, stored, call('HGET', results, BYTE[position]))
      else
        local entry = spack('>c1Hc0', 'n', #name, name) .. now6 .. sub(ARGV[i], at)
        if known then
          stop_waiting(rid, J, number, stored, results, position)
          call('LSET', list, position, entry)
        else
          call('RPUSH', list, entry)
          call('HSET', T .. ':x:' .. J, field, number)
          call('HSET', journal, 'k', number + 1)
        end
        if timed == 1 then
          call('ZADD', T .. ':z', exactly + wait, 't' .. J .. spack('>I4', number))
          call('HINCRBY', journal, 'tm', 1)
        end
        if awaits == 1 then await_signal(rid, J, number, signal) end
        flush_journals()
        ARGV[i] = reply_for(1, entry, call('HGET', results, BYTE[position]))
      end
    end
  end
  flush_all()
  local reply = {}
  for i = 2, #ARGV do reply[i - 1] = ARGV[i] end
  return reply
end
