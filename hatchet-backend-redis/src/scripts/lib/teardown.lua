-- What is left to do when a run has ended: cancelling its unfinished children, chunk by chunk, and dropping its timers.
--
-- T:k holds work items: J, 'c' or 'e' for the family of chunks, the number of the next chunk (4), the reason.
local teardown
do
  local function cancel_children_of_chunk(J, chunk, family, reason)
    local list, results = T .. ':' .. family .. ':' .. chunk, T .. ':' .. string.upper(family) .. ':' .. chunk
    local ended, changes = Result.positions(results), 0
    local first = (sunpack('>I4', chunk, 19)) * 64
    for _, at in ipairs(positions_of(family, list)) do
      if not ended[at] then
        local slot, entry = stored_at(family, list, first, at)
        if slot then
          local meta = entry_meta(entry)
          if not meta.detached then
            Run.end_run(child_rid(J, slot, meta.generation), 'c' .. reason)
            changes = changes + 1
          end
        elseif not slot and call('ZREM', T .. ':z', 't' .. J .. spack('>I4', first + at)) == 1 then
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

  -- At most about `budget` changes, at least one chunk if there is one; how many.
  function teardown(budget)
    local changes = 0
    while changes < budget do
      -- It is taken away when it is done.
      local item = call('LINDEX', T .. ':k', 0)
      if not item then break end
      local J, family, number, reason = sub(item, 1, 18), sub(item, 19, 19), (sunpack('>I4', item, 20)), sub(item, 24)
      local chunk = next_chunk(J, family, number)
      if chunk then
        changes = changes + 1 + cancel_children_of_chunk(J, chunk, family, reason)
        call('LSET', T .. ':k', 0, J .. family .. spack('>I4', number + 1) .. reason)
      elseif family == 'c' then
        call('LSET', T .. ':k', 0, J .. 'e' .. spack('>I4', 0) .. reason)
      else
        call('LPOP', T .. ':k')
      end
    end
    return changes
  end
end
