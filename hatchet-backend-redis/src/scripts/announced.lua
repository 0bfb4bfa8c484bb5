--! no-writes
-- Reply: the workflows that open sessions announce. A name is repeated for each different set of names that has it.
local function command()
  local names = {}
  for _, kind in ipairs(Announced.by_open_sessions()) do
    for name in pairs(kind.workflows) do names[#names + 1] = name end
  end
  return names
end
