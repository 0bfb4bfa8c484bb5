-- What every command begins with: names for what is used often, the clock, sessions, counters, the inbox of a session.
--
-- The files of this directory are loaded once. What belongs to one call is in variables that `begin` sets anew,
-- whatever the call before left in them. The one key that a command is given is the partition's tag,
-- `{namespace:partition}`; every other key is that tag and a suffix, so that all keys of a command are in one slot.
-- While a library is loaded there are no global names yet: `begin` sets these.
local call, sub, byte, char, floor, spack, sunpack, band, bor
-- Small numbers as a byte and as text: making a string anew costs more than anything else that a script does, and a
-- number is written out anew wherever the server is given it.
local BYTE, TEXT = {}, {}
-- The positions of a chunk as bytes.
local PLACES
-- The arguments of the call; the tag; the moment in milliseconds: with their fraction, so that no timer is early, and
-- as it is shown and stored.
local ARGV, T, exactly, now, now6
local NEVER6 = '\0\0\0\0\0\0'
-- What is done about values that are not ours, see below; and what several files share that looks at them.
local Damage = { MOST = 1000, LONGEST = 512, RETRY_MS = 500 }
-- What operators have paused, see announced.lua.
local Pauses = {}

-- An empty table: mostly the one that was there, since making one costs more than to look.
local function emptied(before)
  if before and next(before) == nil then return before end
  return {}
end

-- When not one session has been heard of for its lease time, and nobody for this long, it is the clock that jumped or
-- the whole fleet that was paused, and not all of its members that died.
local JUMP_MS = 10000

-- Gives the sessions back the time in which nobody was heard of; whether it did. While one session is alive, those that
-- are not are dead.
local function forgive_jump()
  local gap = now - (tonumber(call('HGET', T, 'beat') or now) or now)
  if gap < JUMP_MS then return false end
  local latest = call('ZRANGE', T .. ':s', -1, -1, 'WITHSCORES')
  if not latest[2] or tonumber(latest[2]) >= now then return false end
  for _, session in ipairs(call('ZRANGE', T .. ':s', 0, -1)) do call('ZINCRBY', T .. ':s', gap, session) end
  call('HSET', T, 'beat', now, 'jumped', now, 'leap', gap)
  return true
end

-- The server's clock may jump ahead and come back. What is set meanwhile to happen after a while would then happen too late by as
-- much. So while the clock is in doubt, after it went on by more than JUMP_MS with nobody heard of, how long each is to wait is noted
-- in T:D, and counts anew when the clock comes back.
--
-- Or it goes back and has jumped long before, or never while anybody was there: it was wrong when the server was started, or this is a
-- replica that was behind. Then all that waits for a while is brought forward by as much, a piece with each sweep. What is set meanwhile
-- is noted in T:D, too, and left as it is. A sleep until a moment is never moved.
local Clock = { DOUBT_MS = 600000, SOME = 1000 }

-- The fields that say when somebody was heard of last, and what was noted of the clock.
Clock.FIELDS = { 'beat', 'looked', 'swept', 'jumped', 'leap', 'back' }

function Clock.read()
  return call('HMGET', T, unpack(Clock.FIELDS))
end

-- By how much the clock is ahead of what it was when somebody was heard of last, if that is more than it may be; less than 0 if it is
-- behind; 0 if all is well.
function Clock.change(heard)
  local before = math.max(tonumber(heard[1]) or 0, tonumber(heard[2]) or 0, tonumber(heard[3]) or 0)
  local change = now - before
  return Clock.is_real and before > 0 and math.abs(change) > JUMP_MS and change or 0
end

-- Notes that the clock jumped ahead or went back since somebody was heard of last. `heard`: the fields of the partition from before.
-- When it jumped last.
function Clock.look(heard)
  local jumped, change = tonumber(heard[4]), Clock.change(heard)
  if change > 0 then
    call('HSET', T, 'jumped', now, 'leap', change)
    return now
  end
  if change < 0 then Clock.go_back(-change, jumped, tonumber(heard[5]) or 0, heard[6]) end
  return jumped
end

-- Notes that the clock went back by so much.
function Clock.go_back(by, jumped, leap, going)
  -- It must not keep the dead alive.
  for _, session in ipairs(call('ZRANGE', T .. ':s', 0, -1)) do
    call('ZADD', T .. ':s', now + Damage.lease_of(session), session)
  end
  call('HSET', T, 'beat', now, 'looked', 0, 'swept', 0)
  if jumped then by = by - leap end
  if by < JUMP_MS then return end
  while going and Clock.bring_forward() do end
  if not jumped then call('UNLINK', T .. ':D') end
  call('HSET', T, 'back', by, 'from', '-inf')
end

-- Whether the timer of an entry is for a moment, and not for a time that was to be waited.
function Clock.is_moment(member)
  if byte(member, 1) ~= 116 or #member ~= 23 then return false end
  local chunk, place = Clock.chunk_of(sub(member, 2, 19), (sunpack('>I4', member, 20)))
  local entry = redis.pcall('LINDEX', T .. ':e:' .. chunk, place)
  if type(entry) ~= 'string' or #entry < 10 then return false end
  local fine, _, _, at = pcall(sunpack, '>c1Hc0', entry)
  return fine and sub(entry, at + 6, at + 6) == 'u'
end

-- Brings a piece of what waits forward, the soonest first, if the clock went back. Gives back whether there is more, and by how much the
-- clock went back if this is the first piece.
function Clock.bring_forward()
  local back = call('HMGET', T, 'back', 'from')
  local by = tonumber(back[1] or '')
  if not by then return false end
  -- What was brought forward is in front of `from`, and what was not is behind it: nothing is twice.
  local some = call('ZRANGE', T .. ':z', back[2], '+inf', 'BYSCORE', 'LIMIT', 0, Clock.SOME, 'WITHSCORES')
  local from
  for i = 1, #some, 2 do
    local member, moment = some[i], some[i + 1]
    if call('HEXISTS', T .. ':D', member) == 0 and not Clock.is_moment(member) then
      call('ZADD', T .. ':z', tonumber(moment) - by, member)
    end
    from = moment
  end
  local more = #some == 2 * Clock.SOME
  if more then
    call('HSET', T, 'from', (from == some[2] and '(' or '') .. from)
  else
    call('HDEL', T, 'back', 'from')
    if call('HEXISTS', T, 'jumped') == 0 then call('UNLINK', T .. ':D') end
  end
  return more, back[2] == '-inf' and by or nil
end

-- Whether the clock went back behind a jump that was noted.
function Clock.came_back(jumped)
  jumped = tonumber(jumped)
  return Clock.is_real and jumped ~= nil and now < jumped - JUMP_MS / 2
end

-- Whether what waits is to be brought forward.
function Clock.goes_back()
  return call('HEXISTS', T, 'back') == 1
end

function Clock.is_in_doubt()
  if Clock.doubt == nil then
    local jumped = Clock.look(Clock.read())
    Clock.doubt = jumped ~= nil and now >= jumped and now < jumped + Clock.DOUBT_MS or Clock.goes_back()
  end
  return Clock.doubt
end

-- Notes how long something waits, if the clock is in doubt.
function Clock.note(wait, member)
  if Clock.is_real and Clock.is_in_doubt() then redis.pcall('HSET', T .. ':D', member, wait) end
end

-- Has something happen after a while.
function Clock.set(wait, member)
  call('ZADD', T .. ':z', exactly + wait, member)
  Clock.note(wait, member)
end

-- Has what was set while the clock was ahead wait from now on.
function Clock.mend()
  local cursor = '0'
  repeat
    local page = call('HSCAN', T .. ':D', cursor, 'COUNT', 500)
    cursor = page[1]
    for i = 1, #page[2], 2 do call('ZADD', T .. ':z', 'XX', exactly + tonumber(page[2][i + 1]), page[2][i]) end
  until cursor == '0'
  Clock.trust()
end

-- The clock is right. What is noted is still needed if other things are brought forward.
function Clock.trust()
  call('HDEL', T, 'jumped', 'leap')
  if not Clock.goes_back() then call('UNLINK', T .. ':D') end
end

-- Does something about a clock that jumped or went back, a piece of it if that is much; by how much it went back, if this is the first
-- piece, else 0.
function Clock.settle(heard)
  local jumped, back = Clock.look(heard), 0
  forgive_jump()
  if Clock.came_back(jumped) then
    back = jumped - now
    Clock.mend()
  elseif jumped and now > jumped + Clock.DOUBT_MS then
    Clock.trust()
  end
  if Clock.goes_back() then
    local _, by = Clock.bring_forward()
    back = by or back
  end
  return back
end

-- How long a session lives without a heartbeat. One whose record was lost has time to notice.
function Damage.lease_of(session)
  return tonumber(call('HGET', T .. ':h:' .. session, 'lease') or 30000) or 30000
end

local function alive(session)
  local deadline = tonumber(call('ZSCORE', T .. ':s', session) or 0)
  if deadline >= now then return true end
  return deadline > 0 and forgive_jump() and tonumber(call('ZSCORE', T .. ':s', session)) >= now
end

local function session_lost()
  return redis.error_reply('SESSIONLOST the session is not open')
end

-- Counters of a queue: 'r' ready, 'd' delayed, 'l' leased, 'p' parked, 'g' tasks in ready lists whose run has ended.
local tallies
local function count(what, queue, by)
  local field = what .. queue
  tallies[field] = (tallies[field] or 0) + by
end
local function flush_counts()
  -- Those that come to nothing too: who watches the counters is to see that tasks moved.
  for field, by in pairs(tallies) do call('HINCRBY', T .. ':n', field, TEXT[by] or by) end
  tallies = emptied(tallies)
end

local look_again, guard
do
  -- What stands under a key of ours, if anything does, may be another program's. Commands look before their first
  -- change, so that such a key is an error that leaves no change by half.
  local OWN = {
    s = 'zset', f = 'zset', z = 'zset', a = 'zset', x = 'zset', v = 'hash', n = 'hash', d = 'hash', o = 'hash', w = 'set',
    q = 'set', k = 'list', p = 'list', P = 'hash', bad = 'hash', ['a:u'] = 'zset', ['a:f'] = 'zset', ['a:c'] = 'zset', ['a:e'] = 'zset',
  }
  Damage.OWN = OWN
  -- By tag: those of these keys, and their types, that were not there when they were last looked at, and how many calls
  -- ago all were. What is there and ours stays so unless somebody interferes on purpose, or removes everything: then no
  -- session is open, and all keys are looked at again when one is opened, as after an error. So as long as nothing is
  -- paused, this look says so, and no call reads what is paused.
  local unseen = {}
  local CALLS_BETWEEN_LOOKS = 1000
  function look_again()
    unseen[T] = nil
  end

  local function all_unseen()
    local keys = { names = { T }, kinds = { 'hash' }, calls = 0 }
    for suffix, kind in pairs(OWN) do
      keys.names[#keys.names + 1], keys.kinds[#keys.kinds + 1] = T .. ':' .. suffix, kind
    end
    unseen[T] = keys
    return keys
  end

  -- Reads what is paused, as long as something is. Gives back an error of the server.
  local function read_pauses(keys)
    local refusal = Pauses.read()
    if refusal then
      look_again()
    elseif not Pauses.queues then
      keys.has_pauses, keys.names[#keys.names + 1], keys.kinds[#keys.kinds + 1] = false, Pauses.key(), 'hash'
    end
    return refusal
  end

  -- The error with which a command ends that finds another program's key.
  function guard()
    local keys = unseen[T]
    if not keys or keys.calls == CALLS_BETWEEN_LOOKS then keys = all_unseen() end
    keys.calls = keys.calls + 1
    if #keys.names > 0 and call('EXISTS', unpack(keys.names)) > 0 then
      local names, kinds = {}, {}
      for i, key in ipairs(keys.names) do
        local found, kind = call('TYPE', key).ok, keys.kinds[i]
        if found == 'none' then
          names[#names + 1], kinds[#kinds + 1] = key, kind
        elseif found ~= kind then
          return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found)
        elseif key == Pauses.key() then
          keys.has_pauses = true
        end
      end
      keys.names, keys.kinds = names, kinds
    end
    if keys.has_pauses then return read_pauses(keys) end
  end
end

-- Damage: values that stand where ours do and are none of ours, or say what cannot be.
--
--   T:bad    hash: key, 0 (1) and the value, shortened -> moment (6), 'a' set aside or 'w' to be tried again (1), why.
--            At most MOST of them.
--
-- What cannot be done for one element is said here, and everything else goes on. `found` has what this call has met that was
-- not known: key, value and reason in turns; `blocked` whether something is to be tried again; `met` what was put off.

-- Whether an error is about the key of one element: another type is under it. Any other word of the server, that it has no
-- memory or that the user has no right, is about the call, and ends it.
function Damage.is_refusal(why)
  local said = type(why) == 'table' and why.err or why
  if string.find(said, '^WRONGTYPE') then return true end
  if type(why) == 'table' or string.find(said, '^%u+ ') then error(why, 0) end
  return false
end

function Damage.note(key, value, why, mark)
  if type(why) == 'table' then why = why.err or 'refused' end
  -- Without the place in our text.
  why = string.gsub(why, '^[^ ]*:%d+: ', '')
  local shown = #value <= Damage.LONGEST and value or sub(value, 1, Damage.LONGEST) .. '... ' .. redis.sha1hex(value)
  local field = key .. '\0' .. shown
  local known = call('HEXISTS', T .. ':bad', field) == 1
  if known or call('HLEN', T .. ':bad') < Damage.MOST then
    call('HSET', T .. ':bad', field, now6 .. mark .. sub(why, 1, Damage.LONGEST))
  end
  if known then return end
  local found = Damage.found or {}
  found[#found + 1], found[#found + 2], found[#found + 3] = key, shown, why
  Damage.found = found
end

-- A value that the caller takes out of its key.
function Damage.set_aside(key, value, why)
  Damage.note(key, value, why, 'a')
end

-- A value that is passed over.
function Damage.pass_over(key, value, why)
  Damage.note(key, value, why, 'w')
end

-- A value that stays, to be tried again later.
function Damage.postpone(key, value, why)
  Damage.blocked = true
  Damage.note(key, value, why, 'w')
end

-- The same for keys that first changes make.
local Touch = {}
function Touch.hash(name, id) call('HLEN', T .. name .. id) end
function Touch.list(name, id) call('LLEN', T .. name .. id) end

-- Sets `absent[names[i]]` for each key `keys[i]` that is known not to exist. One command asks for many keys: if one of these exists, none of
-- them is marked.
function Touch.mark_absent(keys, names, absent)
  for from = 1, #keys, 200 do
    local upto = math.min(from + 199, #keys)
    if call('EXISTS', unpack(keys, from, upto)) == 0 then
      for i = from, upto do absent[names[i]] = true end
    end
  end
end

-- Those whom this call leaves something to receive. Known where time is virtual: nobody waits for the server then.
local told
local function tell(session)
  if told then told[#told + 1] = session end
end

-- The session whose call this is, if its reply carries events, and those events.
local caller, inline

-- Events are gathered by session and written at the end of the command.
local events
local function notify(session, event, may_inline)
  if may_inline and session == caller then
    inline[#inline + 1] = event
    return
  end
  local list = events[session]
  if not list then
    list = {}
    events[session] = list
  end
  list[#list + 1] = event
end

local function flush_events()
  for session, list in pairs(events) do
    tell(session)
    local n, from, length = #list, 1, 0
    while from <= n and type(length) == 'number' do
      length = redis.pcall('RPUSH', T .. ':i:' .. session, unpack(list, from, math.min(from + 999, n)))
      from = from + 1000
    end
    if length == n then
      -- The blocking connection waits for this mark; losing it costs nothing, since its owner looks into the inbox
      -- first.
      redis.pcall('RPUSH', T .. ':m:' .. session, '1')
    elseif type(length) == 'table' then
      -- Who cannot be told of anything is as good as dead.
      call('ZADD', T .. ':s', 'XX', 1, session)
    end
  end
  events = emptied(events)
end

-- Sessions whose connection is gone, or which a server that was started has not heard of.
local Suspicion = {}

-- Has a session be dead soon, unless it is heard of before, for which it is asked. Gives back in how many milliseconds; -1 if it
-- is dead already.
function Suspicion.raise(session)
  local GRACE_MS = 400
  local deadline = tonumber(call('ZSCORE', T .. ':s', session) or 0)
  if deadline <= now then return -1 end
  call('HDEL', T .. ':h:' .. session, 'client')
  call('HSET', T .. ':h:' .. session, 'unsuspected', deadline)
  call('ZADD', T .. ':s', math.min(deadline, now + GRACE_MS), session)
  notify(session, 'P')
  return GRACE_MS
end

-- Its process was heard of: it has the time again that its heartbeats gave it, and no more.
function Suspicion.lift(session)
  local deadline = tonumber(call('HGET', T .. ':h:' .. session, 'unsuspected') or '')
  if not deadline then return end
  call('ZADD', T .. ':s', math.min(deadline, now + Damage.lease_of(session)), session)
  call('HDEL', T .. ':h:' .. session, 'unsuspected')
end

-- Sessions that may hold leases: the living, and the dead whose leases were not recovered yet.
local holders_cache
local function holders()
  if not holders_cache then
    holders_cache = call('ZRANGE', T .. ':s', 0, -1)
    for _, session in ipairs(call('HKEYS', T .. ':v')) do holders_cache[#holders_cache + 1] = session end
  end
  return holders_cache
end

-- Calls `command key ...` with many arguments in pieces that `unpack` and the server bear.
local function in_pieces(command, key, list)
  local n = #list
  if n <= 1000 then
    if n > 0 then return call(command, key, unpack(list)) end
    return 0
  end
  local last
  for from = 1, n, 1000 do last = call(command, key, unpack(list, from, math.min(from + 999, n))) end
  return last
end
