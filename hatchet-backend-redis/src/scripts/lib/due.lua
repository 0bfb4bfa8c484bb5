-- When a sweep has something to do: milliseconds from now, -1 if nothing is known.
local function due_in()
  if Clock.goes_back() then return 0 end
  local soonest = -1
  if call('EXISTS', T .. ':k', T .. ':p', T .. ':v') > 0 then
    if not Damage.blocked then return 0 end
    soonest = Damage.RETRY_MS
  end
  for _, index in ipairs({ ':z', ':s', ':x' }) do
    local first = call('ZRANGE', T .. index, 0, 0, 'WITHSCORES')
    if first[2] then
      local wait = math.max(0, math.ceil(tonumber(first[2]) - exactly))
      if soonest < 0 or wait < soonest then soonest = wait end
    end
  end
  return soonest
end
