--! allow-oom
-- Has stalled tasks of runs become ready for whoever announced their workflow.
-- ARGV: rids
-- Reply: for each run how many these were.
local function command()
  local reply = {}
  for i, rid in ipairs(ARGV) do
    local tasks, resumed = call('HGETALL', T .. ':t:' .. rid), 0
    for at = 1, #tasks, 2 do
      local step = tasks[at]
      if #step == 2 and sub(tasks[at + 1], 1, 1) == 'S' and result_of(rid) == false then
        local tid, tail = Aside.leave(rid, step)
        if tid then
          local task = read_tail(tail)
          Touch.queue(tail)
          Aside.forget(rid, step, task.flags)
          set_phase(rid, step, 'R', task.attempt, task.recoveries)
          make_ready(tail, element_of(tid, tail))
          resumed = resumed + 1
        end
      end
    end
    reply[i] = resumed
  end
  flush_all()
  return reply
end
