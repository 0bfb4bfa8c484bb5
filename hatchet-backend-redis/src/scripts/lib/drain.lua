-- Takes the leases of a session that is over and gives them back.
--
-- T:v says of each such session what became of it: 'd' it died, 'c' it was closed.
local drain, fence
do
  function drain(session, fate, budget)
    local leases = T .. ':l:' .. session
    -- One more than wanted, since the hash holds one field that is no lease.
    local some = call('HRANDFIELD', leases, budget + 1, 'WITHVALUES')
    local given = 0

    local function give(tid, held)
      if #tid < 18 or not Damage.is_rid(rid_of(tid)) then error('it names no task') end
      if result_of(rid_of(tid)) ~= false then error('it is of a run that is not there or has ended') end
      Run.give_back(tid, held, { recovered = fate ~= 'c' })
      Lease.drop(leases, tid)
      given = given + 1
    end

    for i = 1, #some, 2 do
      local field, stored = some[i], some[i + 1]
      if field ~= '' and given < budget then
        local fine, why = pcall(Lease.each, field, stored, give)
        if not fine and Damage.is_refusal(why) then
          Damage.postpone(leases, field .. stored, why)
        elseif not fine then
          Damage.set_aside(leases, field .. stored, why)
          call('HDEL', leases, field)
          given = given + 1
        end
      end
    end
    if call('HLEN', leases) <= 1 then
      events[session] = nil
      call('UNLINK', leases, T .. ':i:' .. session, T .. ':m:' .. session, T .. ':h:' .. session)
      call('HDEL', T .. ':v', session)
    end
    return given
  end

  -- Work that the session was told of, or would have been, must not wait for it.
  local function tell_others(session)
    for _, queue in ipairs(call('SMEMBERS', T .. ':q')) do
      call('ZREM', T .. ':y:' .. queue, session)
      Wake.again(queue, math.huge)
    end
  end

  local FENCE_MS = 7 * 24 * 3600 * 1000

  -- From here on the session is not open and never will be.
  function fence(session, fate)
    call('ZREM', T .. ':s', session)
    call('ZADD', T .. ':f', now + FENCE_MS, session)
    call('HSET', T .. ':v', session, fate)
    holders_cache = nil
    tell(session)
    tell_others(session)
    Announced.forget(session)
  end
end
