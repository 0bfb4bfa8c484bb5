--! allow-oom
-- Asks how runs ended, or to be told.
-- ARGV: session, bytes of endings after which no more are looked at, rids
-- Reply: for each run, as far as it came, at least for the first: 'N' no such run, 'P' it will be told, or '=' and its
-- ending.
local function with_watcher(watchers, session)
  local kept = session
  for at = 1, #watchers, 16 do
    local other = sub(watchers, at, at + 15)
    if other == Run.unread.MARK or other ~= session and alive(other) then kept = kept .. other end
  end
  return kept
end

-- Has the session told of the ends of some runs.
local function watch(session, rids)
  if #rids == 0 then return end
  local fields = {}
  for i, watchers in ipairs(call('HMGET', T .. ':o', unpack(rids))) do
    fields[2 * i - 1], fields[2 * i] = rids[i], watchers and with_watcher(watchers, session) or session
  end
  call('HSET', T .. ':o', unpack(fields))
end

local function command()
  local session, room, reply, pending = ARGV[1], tonumber(ARGV[2]), {}, {}
  if not alive(session) then return session_lost() end
  for i = 3, #ARGV do
    local rid = ARGV[i]
    local result = result_of(rid)
    if result == nil or Run.is_removed(rid) then
      reply[i - 2] = 'N'
    elseif result then
      reply[i - 2] = '=' .. sub(result, 17)
      room = room - #result
      if room <= 0 then break end
    else
      pending[#pending + 1] = rid
      reply[i - 2] = 'P'
    end
  end
  watch(session, pending)
  return reply
end
