-- Removing trees whose retention is over, a bounded piece at a time.
--
-- T:p holds work items: 'r' rid, a run's own keys; 'j' J, a journal's chunks.
local purge
do
  local function purge_run(rid)
    local record = T .. ':r:' .. rid
    local stored = call('HMGET', record, 'U', 'j')
    local uid = #rid == 16 and rid or stored[1]
    for at = 1, #(stored[2] or ''), 2 do call('RPUSH', T .. ':p', 'j' .. uid .. sub(stored[2], at, at + 1)) end
    local signals = T .. ':g:' .. rid
    if call('EXISTS', signals) == 1 then
      for _, field in ipairs(call('HKEYS', signals)) do
        if byte(field, 1) == 110 then
          call('UNLINK', signal_key('gw', rid, sub(field, 2)), signal_key('gm', rid, sub(field, 2)))
        end
      end
    end
    call('UNLINK', record, T .. ':t:' .. rid, T .. ':u:' .. rid, signals)
  end

  local function purge_journal(J, budget)
    local removed = 0
    for _, rid in ipairs(call('LPOP', T .. ':M:' .. J, budget) or {}) do
      call('RPUSH', T .. ':p', 'r' .. rid)
      removed = removed + 1
    end
    for _, chunk in ipairs(call('LPOP', T .. ':b:' .. J, budget) or {}) do
      call('UNLINK', T .. ':c:' .. J .. chunk, T .. ':C:' .. J .. chunk)
      removed = removed + 1
    end
    local key = T .. ':j:' .. J
    local ordered = tonumber(call('HGET', key, 'k') or 0)
    while ordered > 0 and removed < 2 * budget do
      local chunk = chunk_of(J, ordered - 1)
      call('UNLINK', T .. ':e:' .. chunk, T .. ':E:' .. chunk)
      ordered = floor((ordered - 1) / 64) * 64
      removed = removed + 1
    end
    if removed > 0 then
      call('HSET', key, 'k', ordered)
    else
      call('UNLINK', key, T .. ':x:' .. J, T .. ':M:' .. J, T .. ':O:' .. J)
    end
    return removed
  end

  -- Makes a whole tree unknown; what is left of it is removed piece by piece.
  function Roots.forget_tree(root)
    local record = T .. ':r:' .. root
    local stored = call('HMGET', record, 'd', 'L', 'k')
    if (tonumber(stored[2] or 0) or 1) > 0 then error('it is of a tree that has not ended') end
    if stored[1] then call('HDEL', T .. ':d', stored[1]) end
    Roots.forget(root, stored[3])
    purge_run(root)
  end

  local function purge_item(item, budget)
    local rest = sub(item, 2)
    if byte(item, 1) == 114 and Damage.is_rid(rest) then
      purge_run(rest)
      return 0
    elseif byte(item, 1) == 106 and #rest == 18 then
      return purge_journal(rest, budget)
    end
    error('it names nothing to remove')
  end

  function purge(budget)
    local changes = 0
    while changes < budget do
      -- It is taken away when it is done.
      local item = call('LINDEX', T .. ':p', 0)
      if not item then break end
      local fine, left = pcall(purge_item, item, math.min(budget - changes, 100))
      if fine then
        if left == 0 then call('LPOP', T .. ':p') end
        changes = changes + 1 + left
      elseif Damage.put_off(':p', item, left) then
        break
      else
        changes = changes + 1
      end
    end
    return changes
  end
end
