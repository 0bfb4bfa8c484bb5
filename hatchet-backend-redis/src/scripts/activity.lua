--! no-writes
-- Reads what happened to root runs, by the minute.
-- ARGV: the first minute since the epoch, the one behind the last
-- Reply: the minute that it is, then for each count: the minute, its field in the hash of the minute, how many.
local function command()
  local reply = { floor(now / 60000) }
  for minute = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
    -- What another program left there is passed over, as where it is counted.
    local counts = redis.pcall('HGETALL', T .. ':N:' .. minute)
    for i = 1, counts.err and 0 or #counts, 2 do
      reply[#reply + 1] = minute
      reply[#reply + 1] = counts[i]
      reply[#reply + 1] = tonumber(counts[i + 1]) or 0
    end
  end
  return reply
end
