--! allow-oom
-- Delivers a signal to a run.
-- ARGV: rid, name, id (16), payload
-- Reply: 'A' accepted, 'E' ended, 'N' no such run.
local function command()
  local rid, name, id, payload = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  local result = result_of(rid)
  if result == nil or Run.is_removed(rid) then return 'N' end
  if call('HEXISTS', T .. ':g:' .. rid, 'i' .. id) == 1 then return 'A' end
  if result then return 'E' end
  Touch.signal(rid, name)
  materialise(rid)
  call('HSET', T .. ':g:' .. rid, 'i' .. id, 1, 'n' .. name, 1)
  local delivered = false
  while not delivered do
    local waiter = call('LPOP', signal_key('gw', rid, name))
    if not waiter then break end
    local J, number = sub(waiter, 1, 18), (sunpack('>I4', waiter, 19))
    -- What a step waited for that is done is read by nobody.
    local task = call('HGET', T .. ':t:' .. rid, sub(J, 17))
    delivered = not (task and sub(task, 1, 1) == 'X') and resolve_named(J, number, 'g' .. payload)
    if delivered then drop_entry_timer(J, number) end
  end
  if not delivered then Run.unread.keep(rid, name, payload) end
  flush_all()
  return 'A'
end
