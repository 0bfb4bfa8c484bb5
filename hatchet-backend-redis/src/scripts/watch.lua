--! deny-oom
-- Asks how runs ended, or to be told.
-- ARGV: session, rids
-- Reply: for each run: 'N' no such run, 'P' it will be told, or '=' and its ending.
local session, reply = ARGV[1], {}
if not alive(session) then return session_lost() end
for i = 2, #ARGV do
  local rid = ARGV[i]
  local result = result_of(rid)
  if result == nil or is_removed(rid) then
    reply[i - 1] = 'N'
  elseif result then
    reply[i - 1] = '=' .. sub(result, 17)
  else
    local kept = session
    local watchers = call('HGET', T .. ':o', rid) or ''
    for at = 1, #watchers, 16 do
      local other = sub(watchers, at, at + 15)
      if other ~= session and alive(other) then kept = kept .. other end
    end
    call('HSET', T .. ':o', rid, kept)
    reply[i - 1] = 'P'
  end
end
return reply
