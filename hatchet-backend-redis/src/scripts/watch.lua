--! deny-oom
-- Asks how runs ended, or to be told.
-- ARGV: session, bytes of endings after which no more are looked at, rids
-- Reply: for each run, as far as it came, at least for the first: 'N' no such run, 'P' it will be told, or '=' and its
-- ending.
local function add_watcher(rid, session)
  local kept = session
  local watchers = call('HGET', T .. ':o', rid)
  for at = 1, #watchers, 16 do
    local other = sub(watchers, at, at + 15)
    if other ~= session and alive(other) then kept = kept .. other end
  end
  call('HSET', T .. ':o', rid, kept)
end

local function command()
  local session, room, reply = ARGV[1], tonumber(ARGV[2]), {}
  if not alive(session) then return session_lost() end
  for i = 3, #ARGV do
    local rid = ARGV[i]
    local result = result_of(rid)
    if result == nil or is_removed(rid) then
      reply[i - 2] = 'N'
    elseif result then
      reply[i - 2] = '=' .. sub(result, 17)
      room = room - #result
      if room <= 0 then break end
    else
      if call('HSETNX', T .. ':o', rid, session) == 0 then add_watcher(rid, session) end
      reply[i - 2] = 'P'
    end
  end
  return reply
end
