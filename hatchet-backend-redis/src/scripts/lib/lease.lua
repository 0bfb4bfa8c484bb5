-- Leases: what a session holds.
--
--   T:l:session   hash: tid -> held (see queue.lua); of lean tasks chunk (22) -> its spans, each: token (12) claimed (6)
--                 number (1) positions tail length (1) tail
--
-- A task is lean while nothing is known of it but its run's entry: the first task of a child with an index, of its
-- first generation, without a record. Once it is more than that, its lease has a field of its own.
local Lease = {}

function Lease.may_be_lean(tid)
  return #tid == 25 and byte(tid, 19) == 105 and sub(tid, 24) == STEP0
end

function Lease.is_lean(tid, tail)
  return band(byte(tail, 1), 255 - DETACHED) == FIRST and Lease.may_be_lean(tid)
end

-- How a task stands in a queue alone.
function Lease.element(tid, tail)
  if not Lease.is_lean(tid, tail) then return element_of(tid, tail) end
  return span_element(sub(tid, 1, 18), (sunpack('>I4', tid, 20)), 1, tail)
end

function Lease.read(stored)
  local spans, at = {}, 1
  while at <= #stored do
    local token, claimed, places, tail
    token, claimed, places, tail, at = sunpack('>c12c6Bc0Bc0', stored, at)
    spans[#spans + 1] = { token = token, held = token .. claimed .. tail, places = places, tail = tail }
  end
  return spans
end

function Lease.write_span(held, places, tail)
  return sub(held, 1, 18) .. spack('>Bc0Bc0', #places, places, #tail, tail)
end

function Lease.store(leases, chunk, spans)
  local kept = {}
  for _, span in ipairs(spans) do
    if span.places ~= '' then kept[#kept + 1] = Lease.write_span(span.held, span.places, span.tail) end
  end
  if #kept > 0 then
    call('HSET', leases, chunk, table.concat(kept))
  else
    call('HDEL', leases, chunk)
  end
end

-- The span that holds a lean task, and what is needed to take it out of there; nil if there is none.
function Lease.span_of(leases, tid)
  if not Lease.may_be_lean(tid) then return nil end
  local chunk, place = chunk_of(sub(tid, 1, 18), (sunpack('>I4', tid, 20)))
  local stored = call('HGET', leases, chunk)
  local spans = stored and Lease.read(stored) or {}
  for _, span in ipairs(spans) do
    local at = string.find(span.places, char(place), 1, true)
    if at then return span, at, spans, chunk end
  end
end

function Lease.leave_span(leases, tid)
  local span, at, spans, chunk = Lease.span_of(leases, tid)
  if span then
    span.places = sub(span.places, 1, at - 1) .. sub(span.places, at + 1)
    Lease.store(leases, chunk, spans)
  end
end

-- What is held of a task; nil if it is not leased here.
function Lease.held(leases, tid)
  local held = call('HGET', leases, tid)
  if held then return held end
  local span = Lease.span_of(leases, tid)
  return span and span.held
end

function Lease.drop(leases, tid)
  if call('HDEL', leases, tid) == 0 then Lease.leave_span(leases, tid) end
end

-- Changes what is held of a task, which from now on is not lean.
function Lease.put(leases, tid, held)
  if call('HSET', leases, tid, held) == 1 then Lease.leave_span(leases, tid) end
end

-- The leases of some tasks, read together and, as far as they change, written together. What they are held with changes
-- only through this until it is written.
function Lease.batch(leases, tids)
  local batch, held_of, chunks, changed, lean, span_of = {}, {}, {}, {}, {}, {}

  for from = 1, #tids, 1000 do
    local upto = math.min(from + 999, #tids)
    local some = call('HMGET', leases, unpack(tids, from, upto))
    for i = from, upto do held_of[tids[i]] = some[i - from + 1] end
  end

  -- The span that holds a lean task, where in it, and the chunk; nil if there is none.
  local function find_span(tid)
    if not Lease.may_be_lean(tid) then return nil end
    local place, known = BYTE[byte(tid, 23) % 64], span_of[tid]
    if known then return known, string.find(known.places, place, 1, true), known.chunk end
    local name = chunk_of(sub(tid, 1, 18), (sunpack('>I4', tid, 20)))
    local chunk = chunks[name]
    if not chunk then
      chunk = { name = name, spans = Lease.read(call('HGET', leases, name) or '') }
      chunks[name] = chunk
    end
    for _, span in ipairs(chunk.spans) do
      local at = string.find(span.places, place, 1, true)
      if at then
        span_of[tid], span.chunk = span, chunk
        return span, at, chunk
      end
    end
  end

  -- What is held of a task; nil if it is not leased here.
  function batch.held(tid)
    if held_of[tid] then return held_of[tid] end
    local span = find_span(tid)
    return span and span.held
  end

  -- Changes what is held of a task, which from now on is not lean.
  function batch.put(tid, held)
    if not held_of[tid] then
      local span, at, chunk = find_span(tid)
      if span then
        span.places, span_of[tid] = sub(span.places, 1, at - 1) .. sub(span.places, at + 1), nil
        lean[chunk.name] = chunk
      end
    end
    held_of[tid] = held
    changed[#changed + 1] = tid
    changed[#changed + 1] = held
  end

  function batch.flush()
    for name, chunk in pairs(lean) do Lease.store(leases, name, chunk.spans) end
    in_pieces('HSET', leases, changed)
    lean, changed = {}, {}
  end

  return batch
end

-- Calls `visit` with the tid and what is held of each task under a field.
function Lease.each(field, stored, visit)
  if #field == 22 then
    local J, first = sub(field, 1, 18), (sunpack('>I4', field, 19)) * 64
    for _, span in ipairs(Lease.read(stored)) do
      for i = 1, #span.places do visit(J .. 'i' .. spack('>I4', first + byte(span.places, i)) .. STEP0, span.held) end
    end
  elseif field ~= '' then
    visit(field, stored)
  end
end

-- Calls `visit` with the tid and what is held of each task that an earlier call leased with this token.
function Lease.each_given(leases, nonce, visit)
  local cursor, given = '0', {}
  repeat
    local page = call('HSCAN', leases, cursor, 'COUNT', 500)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      Lease.each(page[2][i], page[2][i + 1], function(tid, held)
        if token_of(held) ~= nonce or given[tid] then return end
        given[tid] = true
        visit(tid, held)
      end)
    end
  until cursor == '0'
end

-- Leases are gathered and written by flush_leases.
local leased, leased_spans
function Lease.add_places(chunk, places, tail)
  local spans = leased_spans[chunk]
  if not spans then
    spans = {}
    leased_spans[chunk] = spans
  end
  local last = spans[#spans]
  if last and last.tail == tail then
    last.places = last.places .. places
  else
    spans[#spans + 1] = { places = places, tail = tail }
  end
end

function Lease.add(tid, tail)
  if Lease.is_lean(tid, tail) then
    local chunk, place = chunk_of(sub(tid, 1, 18), (sunpack('>I4', tid, 20)))
    Lease.add_places(chunk, BYTE[place], tail)
  else
    leased[#leased + 1] = { tid = tid, tail = tail }
  end
end

-- `head` is the token and the moment of the claim.
function Lease.flush(leases, head)
  local fields = {}
  for i, task in ipairs(leased) do fields[2 * i - 1], fields[2 * i] = task.tid, head .. task.tail end
  for chunk, spans in pairs(leased_spans) do
    local parts = { call('HGET', leases, chunk) or '' }
    for _, span in ipairs(spans) do parts[#parts + 1] = Lease.write_span(head, span.places, span.tail) end
    fields[#fields + 1] = chunk
    fields[#fields + 1] = table.concat(parts)
  end
  in_pieces('HSET', leases, fields)
  leased, leased_spans = emptied(leased), emptied(leased_spans)
end
