--! allow-oom
-- Leases ready tasks.
-- ARGV: session, 12 bytes of a new token, 1 if this repeats a call whose reply was lost, retention in ms, then for each
-- queue: name,
--   number wanted
-- Reply: now, then for each task: element, entry (without input unless it is the first task).
local session, nonce, again = ARGV[1], ARGV[2], ARGV[3] == '1'
retention = tonumber(ARGV[4])
if not alive(session) then return session_lost() end
local leases_key, lease_head = T .. ':l:' .. session, nonce .. now6
local reply, replied, leases, leased = { now }, 1, {}, 0

-- What the lost reply of this very call gave.
local function give_again()
  local cursor, given = '0', {}
  repeat
    local page = call('HSCAN', leases_key, cursor, 'COUNT', 500)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      local tid, held = page[2][i], page[2][i + 1]
      if token_of(held) == nonce and not given[tid] then
        given[tid] = true
        local tail = tail_of(held)
        local entry = entry_of(rid_of(tid))
        reply[#reply + 1] = element_of(tid, tail)
        reply[#reply + 1] = band(byte(tail, 1), FIRST) ~= 0 and entry or without_input(entry)
      end
    end
  until cursor == '0'
  return #reply > 1
end
if again and give_again() then return reply end

-- The entries of children with an index, read chunk by chunk: neighbours in a queue are mostly neighbours in a chunk.
local function read_entries(elements)
  local chunks, chunk_at, place_at = {}, {}, {}
  local last_J, of_J
  for i, element in ipairs(elements) do
    if byte(element, 1) == 25 and byte(element, 20) == 105 then
      local J = sub(element, 2, 19)
      if J ~= last_J then
        last_J, of_J = J, chunks[J] or {}
        chunks[J] = of_J
      end
      local a, b, c, d = byte(element, 21, 24)
      local number = ((a * 256 + b) * 256 + c) * 256 + d
      local at = number % 64
      number = (number - at) / 64
      local range = of_J[number]
      if not range then
        range = { first = at, last = at }
        of_J[number] = range
      elseif at > range.last then
        range.last = at
      elseif at < range.first then
        range.first = at
      end
      chunk_at[i], place_at[i] = range, at
    end
  end
  for J, of_J in pairs(chunks) do
    for number, range in pairs(of_J) do
      range.entries = call('LRANGE', T .. ':c:' .. J .. spack('>I4', number), range.first, range.last)
    end
  end
  local entries = {}
  for i, range in pairs(chunk_at) do
    local entry = range.entries[place_at[i] - range.first + 1]
    -- Of generation 0, as the element; an empty one is of no child.
    if entry and entry ~= '' and (sunpack('>I4', entry)) == 0 then entries[i] = entry end
  end
  return entries
end

local helds = {}
local function give(tid, tail, element, entry)
  local held = helds[tail]
  if not held then
    held = lease_head .. tail
    helds[tail] = held
  end
  leases[2 * leased + 1], leases[2 * leased + 2] = tid, held
  leased = leased + 1
  reply[replied + 1], reply[replied + 2] = element, entry
  replied = replied + 2
end

-- Leases a task about which there is more to know than that it is the first of its run.
local function give_with_care(tid, tail, entry)
  local flags = byte(tail, 1)
  if band(flags, QUEUE_TIMED) ~= 0 then
    call('ZREM', T .. ':z', 'q' .. rid_of(tid))
    tail = char(flags - QUEUE_TIMED) .. sub(tail, 2)
  end
  if band(flags, JOURNALED) ~= 0 then
    call('HSET', T .. ':j:' .. journal_of(rid_of(tid), sub(tid, -2)), 's', session)
  end
  give(tid, tail, element_of(tid, tail), band(flags, FIRST) ~= 0 and entry or without_input(entry))
end

-- Leases a task if its run goes on; how many tasks were leased.
local function take(queue, element, entry, has_garbage)
  local tid, tail = split_element(element)
  local rid = rid_of(tid)
  entry = entry or entry_of(rid)
  local doom = entry and doom_of(rid, band(byte(tail, 1), DETACHED) ~= 0)
  if not entry or ((has_garbage or doom) and result_of(rid) ~= false) then
    count('g', queue, -1)
    return 0
  elseif doom then
    end_run(rid, 'c' .. doom, tid)
    return 0
  end
  give_with_care(tid, tail, entry)
  return 1
end

-- How many tasks of the queue were leased.
local function claim_from(queue, wanted)
  local keys = list_keys(queue)
  local has_garbage = tonumber(call('HGET', T .. ':n', 'g' .. queue) or 0) > 0
  local simple = not has_garbage and call('EXISTS', T .. ':k') == 0
  local got = 0
  while got < wanted do
    local popped = call('LMPOP', 6, keys[1], keys[2], keys[3], keys[4], keys[5], keys[6], 'LEFT', 'COUNT', wanted - got)
    if not popped then break end
    local elements = popped[2]
    local entries = read_entries(elements)
    for i, element in ipairs(elements) do
      local n, entry = byte(element, 1), entries[i]
      if simple and entry and band(byte(element, n + 2), 255 - DETACHED) == FIRST then
        give(sub(element, 2, n + 1), sub(element, n + 2), element, entry)
        got = got + 1
      else
        got = got + take(queue, element, entry, has_garbage)
      end
    end
  end
  count('l', queue, got)
  return got
end

for i = 5, #ARGV, 2 do
  local queue, wanted = ARGV[i], tonumber(ARGV[i + 1])
  if claim_from(queue, wanted) < wanted then
    call('ZADD', T .. ':y:' .. queue, 'NX', now, session)
  else
    call('ZREM', T .. ':y:' .. queue, session)
  end
end
in_pieces('HSET', leases_key, leases)
flush_all()
return reply
