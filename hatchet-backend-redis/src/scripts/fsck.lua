--! no-writes
-- Looks at a whole partition and tells what contradicts the contract.
-- Reply: sentences. It reads everything at once and holds up the server meanwhile.
local findings = {}
local function hex(bytes)
  return (string.gsub(bytes, '.', function(c) return string.format('%02x', byte(c)) end))
end
local function find(text, bytes)
  if #findings < 100 then findings[#findings + 1] = text .. (bytes and ' ' .. hex(bytes) or '') end
end

-- Where each task is, and how many are where in each queue.
local found, tallied = {}, {}
local function tally(what, queue)
  tallied[what .. queue] = (tallied[what .. queue] or 0) + 1
end
local function locate(tid, where)
  if found[tid] and where ~= 'R' then find('a task is in two places: ' .. found[tid] .. ' and ' .. where, tid) end
  if found[tid] and where == 'R' and found[tid] ~= 'R' then return end
  found[tid] = where
end

for _, session in ipairs(holders()) do
  local leases = call('HGETALL', T .. ':l:' .. session)
  for i = 1, #leases, 2 do
    Lease.each(leases[i], leases[i + 1], function(tid, held)
      locate(tid, 'L')
      tally('l', queue_of(tail_of(held)))
    end)
  end
end
local timers = call('ZRANGE', T .. ':z', 0, -1)
local has_timer = {}
for _, member in ipairs(timers) do
  has_timer[member] = true
  if byte(member, 1) == 100 then
    local tid, tail = split_element(sub(member, 2))
    locate(tid, 'D')
    tally('d', queue_of(tail))
  end
end
local ready = {}
for _, queue in ipairs(call('SMEMBERS', T .. ':q')) do
  for _, key in ipairs(list_keys(queue)) do
    for _, element in ipairs(call('LRANGE', key, 0, -1)) do
      each_task(element, function(tid) ready[#ready + 1] = { tid, queue } end)
    end
  end
end
for _, task in ipairs(ready) do
  local result = result_of(rid_of(task[1]))
  if result ~= false or found[task[1]] then
    tally('g', task[2])
  else
    locate(task[1], 'R')
    tally('r', task[2])
  end
end

-- Whether something will move a parked task on, and nothing should have.
local function check_park(J, journal)
  local at_sequence, on_failure = sunpack('>I4B', journal.p)
  local sequence = tonumber(journal.q or 0)
  if sequence >= at_sequence then find('a parked task was not woken by its journal', J) end
  local timed = has_timer['p' .. J]
  local open = tonumber(journal.u or 0) + tonumber(journal.tm or 0)
  local waits = false
  for n = 0, tonumber(journal.k or 0) - 1 do
    local chunk, at = chunk_of(J, n)
    local stored = call('LINDEX', T .. ':e:' .. chunk, at)
    if byte(stored, 1) == 110 and awaited(stored) and call('HEXISTS', T .. ':E:' .. chunk, at) == 0 then waits = true end
  end
  if open == 0 and not timed and not waits then find('nothing will wake a parked task', J) end
end

local check_run

local function check_chunk(J, family, chunk, above)
  local first = (sunpack('>I4', chunk, 19)) * 64
  local children, unfinished, total = 0, 0, 0
  for i, entry in ipairs(call('LRANGE', T .. ':' .. family .. ':' .. chunk, 0, -1)) do
    local slot
    if family == 'c' then
      slot = 'i' .. spack('>I4', first + i - 1)
    elseif byte(entry, 1) == 107 then
      slot, entry = sub(entry, 1, 17), sub(entry, 18)
    end
    if slot and entry ~= '' then
      local meta = entry_meta(entry)
      local rid = child_rid(J, slot, meta.generation)
      children = children + 1
      local ended = call('HEXISTS', T .. ':' .. string.upper(family) .. ':' .. chunk, i - 1) == 1
      if not ended then unfinished = unfinished + 1 end
      total = total + check_run(rid, entry, ended, above and not meta.detached)
    end
  end
  return children, unfinished, total
end

local tearing_down = call('EXISTS', T .. ':k') == 1

local function check_journal(rid, ended, J)
  local flat, journal = call('HGETALL', T .. ':j:' .. J), {}
  for i = 1, #flat, 2 do journal[flat[i]] = flat[i + 1] end
  if journal.o ~= rid then find('a journal belongs to another run', J) end
  local children, unfinished, total = 0, 0, 0
  local function add(c, u, t)
    children, unfinished, total = children + c, unfinished + u, total + t
  end
  for _, chunk in ipairs(call('LRANGE', T .. ':b:' .. J, 0, -1)) do add(check_chunk(J, 'c', J .. chunk, ended)) end
  for n = 0, tonumber(journal.k or 0) - 1, 64 do add(check_chunk(J, 'e', (chunk_of(J, n)), ended)) end
  if children ~= tonumber(journal.n or 0) then find('the number of children is wrong', J) end
  if unfinished ~= tonumber(journal.u or 0) then find('the number of unfinished children is wrong', J) end
  if journal.p and not ended then check_park(J, journal) end
  if journal.p then
    locate(split_element(journal.pe), 'P')
    tally('p', queue_of(select(2, split_element(journal.pe))))
  end
  return total
end

-- How many runs below and including this one have not ended.
function check_run(rid, entry, ended, orphan)
  local record = call('HMGET', T .. ':r:' .. rid, 'j', 'U')
  local uid, total = #rid == 16 and rid or record[2], ended and 0 or 1
  for at = 1, #(record[1] or ''), 2 do
    total = total + check_journal(rid, ended, uid .. sub(record[1], at, at + 1))
  end
  local tasks, open, first_known = call('HGETALL', T .. ':t:' .. rid), 0, false
  local function expect(step, phase)
    open = open + 1
    local where = found[rid .. step]
    local right = where == phase or (phase == 'R' and where == 'L')
    if not ended and not right then
      find('a task of an unfinished run is in ' .. (where or 'no place') .. ', not in ' .. phase, rid .. step)
    elseif ended and where then
      find('a task of an ended run is in ' .. where, rid .. step)
    end
  end
  for i = 1, #tasks, 2 do
    if #tasks[i] == 2 then
      if tasks[i] == STEP0 then first_known = true end
      local phase = sub(tasks[i + 1], 1, 1)
      if phase ~= 'X' then expect(tasks[i], phase) end
    end
  end
  if not first_known then expect(STEP0, 'R') end
  if not ended and open == 0 then find('an unfinished run has no task', rid) end
  if not ended and orphan and not tearing_down then find('a run goes on although its parent ended', rid) end
  return total
end

for _, root in ipairs(call('ZRANGE', T .. ':a', 0, -1)) do
  local record = call('HMGET', T .. ':r:' .. root, 's', 'e', 'L')
  if not record[1] then
    find('a listed run is not there', root)
  else
    local unfinished = check_run(root, record[1], record[2] and true or false, false)
    if unfinished ~= tonumber(record[3]) then find('the number of unfinished runs of a tree is wrong', root) end
    if unfinished == 0 and not call('ZSCORE', T .. ':x', root) then find('nothing will remove an ended tree', root) end
  end
end

local stored = call('HGETALL', T .. ':n')
for i = 1, #stored, 2 do
  local field, counted = stored[i], tonumber(stored[i + 1])
  if counted ~= (tallied[field] or 0) then
    find('the counter ' .. field .. ' is ' .. counted .. ' but there are ' .. (tallied[field] or 0))
  end
  tallied[field] = nil
end
for field, number in pairs(tallied) do find('the counter ' .. field .. ' is missing but there are ' .. number) end
return findings
