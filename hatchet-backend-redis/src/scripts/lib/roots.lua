-- Root runs as they are listed and counted for people.
--
-- T:a has all of them, in the order of their creation. T:a:u has those that have not ended; T:a:f, T:a:c and T:a:e have those that
-- failed, were cancelled and expired; each with the same score as in T:a. Those that succeeded are in T:a alone: they are most.
--
-- T:N:minute, a hash, counts by queue what happened in a minute: its fields are a letter and the queue. The letter is 'n' for
-- runs that were created, that of the ending for runs that ended; 'd' and a byte in front of the queue for how long they took, see
-- Roots.duration.
local Roots = { KINDS = { 'u', 'f', 'c', 'e' }, KEPT_S = 25 * 3600 }

-- In which step of the histogram a duration is, in ms: 0 below one, then two steps for each power of two.
function Roots.duration(ms)
  if ms < 1 then return 0 end
  local of_power, power = math.frexp(ms)
  return math.min(2 * power - (2 * of_power < math.sqrt(2) and 1 or 0), 80)
end

do
  -- Those that this call ended: their rids, how they ended, their queues.
  local ended, kinds, queues
  -- By queue: what is counted, by its letter, or the step of a duration, -> how many. A text for each would cost more than all else.
  local counted

  function Roots.begin()
    ended, kinds, queues, counted = emptied(ended), emptied(kinds), emptied(queues), emptied(counted)
  end

  local function counts_of(queue)
    local counts = counted[queue]
    if not counts then
      counts = {}
      counted[queue] = counts
    end
    return counts
  end

  function Roots.note_start(queue)
    local counts = counts_of(queue)
    counts.n = (counts.n or 0) + 1
  end

  function Roots.note_end(rid, ending, queue)
    local n = #ended + 1
    ended[n], kinds[n], queues[n] = rid, sub(ending, 1, 1), queue
  end

  local function write_ends()
    in_pieces('ZREM', T .. ':a:u', ended)
    for first = 1, #ended, 1000 do
      local last = math.min(first + 999, #ended)
      for i, score in ipairs(call('ZMSCORE', T .. ':a', unpack(ended, first, last))) do
        local at = first + i - 1
        local kind, counts = kinds[at], counts_of(queues[at])
        counts[kind] = (counts[kind] or 0) + 1
        if score then
          if kind ~= 's' then call('ZADD', T .. ':a:' .. kind, score, ended[at]) end
          local step = Roots.duration(now - floor(score / 4096))
          counts[step] = (counts[step] or 0) + 1
        end
      end
    end
    ended, kinds, queues = {}, {}, {}
  end

  -- Writes what was gathered.
  function Roots.flush()
    if #ended > 0 then write_ends() end
    if next(counted) == nil then return end
    local key, is_new = T .. ':N:' .. floor(now / 60000), false
    for queue, counts in pairs(counted) do
      for what, by in pairs(counts) do
        local field = (type(what) == 'number' and 'd' .. BYTE[what] or what) .. queue
        -- No run is worth less because it cannot be counted.
        if redis.pcall('HINCRBY', key, field, by) == by then is_new = true end
      end
    end
    if is_new then call('EXPIRE', key, Roots.KEPT_S) end
    counted = {}
  end
end

-- Takes a root run from all lists. `kind`: how it ended, if that is known.
function Roots.forget(rid, kind)
  -- This call may have ended it.
  Roots.flush()
  call('ZREM', T .. ':a', rid)
  for _, of in ipairs(Roots.KINDS) do
    if of == kind or not kind then call('ZREM', T .. ':a:' .. of, rid) end
  end
end

-- Puts a root run where it belongs among those of its kind; whether it was elsewhere. `kind`: how it ended, 'u' if it has not.
function Roots.put_right(rid, score, kind)
  local changed = 0
  for _, of in ipairs(Roots.KINDS) do
    local key = T .. ':a:' .. of
    if of ~= kind then
      changed = changed + call('ZREM', key, rid)
    elseif tonumber(call('ZSCORE', key, rid) or '') ~= tonumber(score) then
      call('ZADD', key, score, rid)
      changed = changed + 1
    end
  end
  return changed > 0
end
