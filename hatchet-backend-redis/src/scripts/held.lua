--! no-writes
-- Reads what a session holds, a page at a time.
-- ARGV: session, cursor ('0' at first), leases about a page
-- Reply: next cursor ('0' at the end), then for each task: token, element.
local function command()
  local session = ARGV[1]
  if tonumber(call('ZSCORE', T .. ':s', session) or 0) < now then return session_lost() end
  local page = call('HSCAN', T .. ':l:' .. session, ARGV[2], 'COUNT', ARGV[3])
  local reply = { page[1] }
  for i = 1, #page[2], 2 do
    Lease.each(page[2][i], page[2][i + 1], function(tid, held)
      reply[#reply + 1] = token_of(held)
      reply[#reply + 1] = element_of(tid, tail_of(held))
    end)
  end
  return reply
end
