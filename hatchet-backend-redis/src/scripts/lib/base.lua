-- What every command begins with: names for what is used often, the clock, sessions, counters, the inbox of a session.
--
-- The files of this directory are loaded once. What belongs to one call is in variables that `begin` sets anew,
-- whatever the call before left in them. The one key that a command is given is the partition's tag,
-- `{namespace:partition}`; every other key is that tag and a suffix, so that all keys of a command are in one slot.
-- While a library is loaded there are no global names yet: `begin` sets these.
local call, sub, byte, char, floor, spack, sunpack, band, bor
-- Small numbers as a byte and as text: making a string anew costs more than anything else that a script does.
local BYTE, TEXT = {}, {}
-- The positions of a chunk as bytes.
local PLACES
-- The tag; the moment in milliseconds: with their fraction, so that no timer is early, and as it is shown and stored.
local T, exactly, now, now6
local NEVER6 = '\0\0\0\0\0\0'

-- When not one session has been heard of for its lease time, and nobody for this long, it is the clock that jumped or
-- the whole fleet that was paused, and not all of its members that died.
local JUMP_MS = 10000

-- Gives the sessions back the time in which nobody was heard of; whether it did. While one session is alive, those that
-- are not are dead.
local function forgive_jump()
  local gap = now - tonumber(call('HGET', T, 'beat') or now)
  if gap < JUMP_MS then return false end
  local latest = call('ZRANGE', T .. ':s', -1, -1, 'WITHSCORES')
  if not latest[2] or tonumber(latest[2]) >= now then return false end
  for _, session in ipairs(call('ZRANGE', T .. ':s', 0, -1)) do call('ZINCRBY', T .. ':s', gap, session) end
  call('HSET', T, 'beat', now)
  return true
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
  for field, by in pairs(tallies) do
    if by ~= 0 then call('HINCRBY', T .. ':n', field, by) end
  end
  tallies = {}
end

-- What stands under a key of ours, if anything does, may be another program's. Commands look before their first change,
-- so that such a key is an error that leaves no change by half.
local OWN = {
  s = 'zset', f = 'zset', z = 'zset', a = 'zset', x = 'zset', v = 'hash', n = 'hash', d = 'hash', o = 'hash', w = 'set',
  q = 'set', k = 'list', p = 'list',
}
-- By tag: the names of these keys, their types, and how many there were after the last change.
local own_keys = {}
local function own()
  local keys = own_keys[T]
  if not keys then
    keys = { names = { T }, kinds = { 'hash' } }
    for suffix, kind in pairs(OWN) do
      keys.names[#keys.names + 1], keys.kinds[#keys.kinds + 1] = T .. ':' .. suffix, kind
    end
    own_keys[T] = keys
  end
  return keys
end

-- The error with which a command ends that finds another program's key. As long as there are as many keys as our last
-- command left, none has come.
local function guard()
  local keys = own()
  if call('EXISTS', unpack(keys.names)) == keys.known then return nil end
  for i, key in ipairs(keys.names) do
    local found = call('TYPE', key).ok
    if found ~= keys.kinds[i] and found ~= 'none' then
      return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found)
    end
  end
end

local function note_own_keys()
  local keys = own()
  keys.known = call('EXISTS', unpack(keys.names))
end

-- The same for keys that first changes make.
local Touch = {}
function Touch.hash(name, id) call('HLEN', T .. name .. id) end
function Touch.list(name, id) call('LLEN', T .. name .. id) end

-- The session whose call this is, if its reply carries events, and those events.
local caller, inline

local function notify(session, event, may_inline)
  if may_inline and session == caller then
    inline[#inline + 1] = event
    return
  end
  local length = redis.pcall('RPUSH', T .. ':i:' .. session, event)
  if length == 1 then
    -- The blocking connection waits for this mark; losing it costs nothing, since its owner looks into the inbox first.
    redis.pcall('RPUSH', T .. ':m:' .. session, '1')
  elseif type(length) == 'table' then
    -- Who cannot be told of anything is as good as dead.
    call('ZADD', T .. ':s', 'XX', 1, session)
  end
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
