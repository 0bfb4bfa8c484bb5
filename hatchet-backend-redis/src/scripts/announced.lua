--! no-writes
-- Reply: the names that open sessions announce as workflows, those that said the same once.
local function command()
  local names, is_known = {}, {}
  for _, session in ipairs(call('ZRANGE', T .. ':s', now, '+inf', 'BYSCORE')) do
    local kind = Announced.of(session)
    if not is_known[kind] then
      is_known[kind] = true
      for name in pairs(kind.workflows) do names[#names + 1] = name end
    end
  end
  return names
end
