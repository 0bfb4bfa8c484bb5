--! no-writes
-- Shows open sessions to people.
-- ARGV: sessions
-- Reply: without sessions: those that are open. Otherwise for each of them that is open: the session, its label, its lease in ms,
-- when it was opened (0 if that is not known), when it was renewed last, how many tasks it holds, a list of its workflows, a list of
-- its queues.

local function count_held(session)
  local leases, cursor, held = T .. ':l:' .. session, '0', 0
  repeat
    local page = call('HSCAN', leases, cursor, 'COUNT', 1000)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      pcall(Lease.each, page[2][i], page[2][i + 1], function() held = held + 1 end)
    end
  until cursor == '0'
  return held
end

local function command()
  if #ARGV == 0 then return call('ZRANGE', T .. ':s', now, '+inf', 'BYSCORE') end
  local reply = {}
  for _, session in ipairs(ARGV) do
    local expires = tonumber(call('ZSCORE', T .. ':s', session) or 0)
    if expires >= now then
      local stored = call('HMGET', T .. ':h:' .. session, 'label', 'opened')
      local kind, lease = Announced.of(session), Damage.lease_of(session)
      for _, value in ipairs({
        session, stored[1] or '', lease, tonumber(stored[2] or 0) or 0, expires - lease, count_held(session),
        Announced.list(kind.workflows), Announced.list(kind.queues),
      }) do
        reply[#reply + 1] = value
      end
    end
  end
  return reply
end
