-- What is left to do when a run has ended: cancelling its unfinished children, chunk by chunk, and dropping its timers.
--
-- T:k holds work items: J, 'c' or 'e' for the family of chunks, the number of the next chunk (4), the reason.
local teardown
do
  -- What is done about the first item of a list that cannot be worked on: it is set aside, or has to wait behind the others.
  -- Whether the list is to be left alone for now, since it was the turn of all others, too.
  function Damage.put_off(list, item, why)
    local key = T .. list
    if not Damage.is_refusal(why) then
      call('LPOP', key)
      Damage.set_aside(key, item, why)
      return false
    end
    Damage.met = Damage.met or {}
    if Damage.met[item] then return true end
    Damage.met[item] = true
    Damage.postpone(key, item, why)
    call('RPUSH', key, (call('LPOP', key)))
    return false
  end

  -- The slot and the entry's meta of what stands in a position, nil for a named entry; false and why if it cannot be read.
  local function read_position(J, family, list, first, at)
    local slot, entry = stored_at(family, list, first, at)
    return slot, slot and entry_meta(entry)
  end

  local function cancel_children_of_chunk(J, chunk, family, reason)
    local list, results = T .. ':' .. family .. ':' .. chunk, T .. ':' .. string.upper(family) .. ':' .. chunk
    local ended, changes = Result.positions(results), 0
    local first = (sunpack('>I4', chunk, 19)) * 64
    for _, at in ipairs(positions_of(family, list)) do
      if not ended[at] then
        local fine, slot, meta = pcall(read_position, J, family, list, first, at)
        if not fine then
          if Damage.is_refusal(slot) then error(slot, 0) end
          Damage.pass_over(list, 'position ' .. at, slot)
        elseif slot then
          if not meta.detached and result_of(child_rid(J, slot, meta.generation)) == false then
            Run.end_run(child_rid(J, slot, meta.generation), 'c' .. reason)
            changes = changes + 1
          end
        elseif call('ZREM', T .. ':z', 't' .. J .. spack('>I4', first + at)) == 1 then
          call('HINCRBY', T .. ':j:' .. J, 'tm', -1)
          changes = changes + 1
        end
      end
    end
    return changes
  end

  local function next_chunk(J, family, number)
    if family == 'c' then
      local chunk = call('LINDEX', T .. ':b:' .. J, number)
      return chunk and J .. chunk
    end
    if number * 64 < tonumber(call('HGET', T .. ':j:' .. J, 'k') or 0) then return J .. spack('>I4', number) end
  end

  -- Works on the first item; how many changes that was.
  local function tear_down(item)
    local J, family, number, reason = sub(item, 1, 18), sub(item, 19, 19), (sunpack('>I4', item, 20)), sub(item, 24)
    if family ~= 'c' and family ~= 'e' then error('it names no children') end
    local chunk = next_chunk(J, family, number)
    if chunk then
      local changes = 1 + cancel_children_of_chunk(J, chunk, family, reason)
      call('LSET', T .. ':k', 0, J .. family .. spack('>I4', number + 1) .. reason)
      return changes
    elseif family == 'c' then
      call('LSET', T .. ':k', 0, J .. 'e' .. spack('>I4', 0) .. reason)
    else
      call('LPOP', T .. ':k')
    end
    return 0
  end

  -- At most about `budget` changes, at least one chunk if there is one; how many.
  function teardown(budget)
    local changes = 0
    while changes < budget do
      -- It is taken away when it is done.
      local item = call('LINDEX', T .. ':k', 0)
      if not item then break end
      local fine, some = pcall(tear_down, item)
      if fine then
        changes = changes + some
      elseif Damage.put_off(':k', item, some) then
        break
      else
        changes = changes + 1
      end
    end
    return changes
  end
end
