--! no-writes
-- Reads what a session holds, a page at a time.
-- ARGV: session, cursor ('0' at first), leases about a page
-- Reply: next cursor ('0' at the end), now, then for each task: token, element, entry (without input unless it is the
-- first task).
local session = ARGV[1]
if tonumber(call('ZSCORE', T .. ':s', session) or 0) < now then return session_lost() end
local page = call('HSCAN', T .. ':l:' .. session, ARGV[2], 'COUNT', ARGV[3])
local reply = { page[1], now }
for i = 1, #page[2], 2 do
  Lease.each(page[2][i], page[2][i + 1], function(tid, held)
    local entry = entry_of(rid_of(tid))
    if not entry then return end
    local tail = tail_of(held)
    reply[#reply + 1] = token_of(held)
    reply[#reply + 1] = element_of(tid, tail)
    reply[#reply + 1] = band(byte(tail, 1), FIRST) ~= 0 and entry or without_input(entry)
  end)
end
return reply
