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
    -- What is none is not held, see fsck.lua.
    pcall(Lease.each, page[2][i], page[2][i + 1], function(tid, held)
      local element = element_of(tid, tail_of(held))
      Damage.checked_element(element)
      reply[#reply + 1] = token_of(held)
      reply[#reply + 1] = element
    end)
  end
  return reply
end
