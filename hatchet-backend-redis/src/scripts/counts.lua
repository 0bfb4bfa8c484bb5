--! no-writes
-- Counts the tasks of each queue.
-- Reply: for each queue: name, ready, delayed, leased, parked.
local function command()
  local counted, reply = {}, {}
  local tallied = call('HGETALL', T .. ':n')
  for i = 1, #tallied, 2 do counted[tallied[i]] = tonumber(tallied[i + 1]) end
  local queues, known = call('SMEMBERS', T .. ':q'), {}
  for _, queue in ipairs(queues) do known[queue] = true end
  for field in pairs(counted) do
    local queue = sub(field, 2)
    if not known[queue] then
      known[queue] = true
      queues[#queues + 1] = queue
    end
  end
  for _, queue in ipairs(queues) do
    reply[#reply + 1] = queue
    for _, what in ipairs({ 'r', 'd', 'l', 'p' }) do reply[#reply + 1] = counted[what .. queue] or 0 end
  end
  return reply
end
