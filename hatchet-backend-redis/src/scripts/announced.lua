--! no-writes
-- Reply: for each different set of names that open sessions announce: a list of the workflows, a list of the queues.
local function command()
  local reply = {}
  for _, kind in ipairs(Announced.by_open_sessions()) do
    if next(kind.workflows) then
      reply[#reply + 1] = Announced.list(kind.workflows)
      reply[#reply + 1] = Announced.list(kind.queues)
    end
  end
  return reply
end
