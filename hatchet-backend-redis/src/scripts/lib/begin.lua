-- Sets what belongs to one call. Each command begins with it. `moment`: the time in microseconds, nil for the server's.
local function begin(tag, moment, arguments)
  if not call then
    call = redis.call
    sub, byte, char, floor = string.sub, string.byte, string.char, math.floor
    spack, sunpack, band, bor = struct.pack, struct.unpack, bit.band, bit.bor
    for number = 0, 255 do BYTE[number] = char(number) end
    for number = -512, 512 do TEXT[number] = tostring(number) end
    PLACES = table.concat(BYTE, '', 0, 63)
  end
  T, ARGV = tag, arguments
  if moment then
    exactly = moment / 1000
  else
    local time = call('TIME')
    exactly = time[1] * 1000 + time[2] / 1000
  end
  now = floor(exactly)
  now6 = spack('>I6', now)
  tallies, caller, inline, events, holders_cache = emptied(tallies), nil, {}, emptied(events), nil
  told = moment and {}
  pushed, pushed_order = emptied(pushed), emptied(pushed_order)
  leased, leased_spans = emptied(leased), emptied(leased_spans)
  last_segment = nil
  looked_up, roots = emptied(looked_up), emptied(roots)
  resolved, resolved_order = emptied(resolved), emptied(resolved_order)
  retention, to_forget = 0, emptied(to_forget)
  over, over_order = emptied(over), emptied(over_order)
  Roots.begin()
  tearing, doomed, Run.unread.committer = nil, emptied(doomed), nil
  Clock.is_real, Clock.doubt = not moment, nil
  Damage.found, Damage.blocked, Damage.met = nil, false, nil
  Pauses.queues, Pauses.workflows = nil, nil
  conclude_call = flush_all
end

-- A reply with what the call has found damaged, if it has: a status, the reply, and key, value and reason of each in turns.
function Damage.reply(reply)
  if not Damage.found or type(reply) == 'table' and reply.err then return reply end
  return { redis.status_reply('BAD'), reply or false, Damage.found }
end

-- What a command answers; in virtual time, behind those whom it tells something. After an error, what was gathered
-- before it is still written: each element of a batch is applied as a whole or not at all.
local function finish(succeeded, reply)
  if succeeded then
    flush_events()
    if not told or type(reply) == 'table' and reply.err then return Damage.reply(reply) end
    return { told, Damage.reply(reply) or false }
  end
  look_again()
  conclude_call()
  flush_events()
  if type(reply) == 'table' then return reply end
  -- An error of a command begins with its code.
  return redis.error_reply(string.find(reply, '^%u+ ') and reply or 'ERR ' .. reply)
end
