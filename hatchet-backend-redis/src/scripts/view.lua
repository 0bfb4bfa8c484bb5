--! no-writes
-- Reads all that is known of runs.
-- ARGV: bytes after which no more are read, rids
-- Reply: for each run, as far as it came, at least for the first: nothing if there is no such run, else: entry, result or
-- '', first claim (6) or '', state, tasks as step and stored task, outputs as step and payload, leases as step, session,
-- held, journals as step, children, unfinished, 1 if the holder waits for it, due moments as step and score, the rid of the
-- run that it continues or '', the uids of those that continue it.
local function command()
  local room = tonumber(ARGV[1])
  -- Where a task is leased is asked of each session.
  local questions = 2000

  local function view(rid)
    if Run.is_removed(rid) then return {} end
    local entry = entry_of(rid)
    if not entry then return {} end
    local record = call('HMGET', T .. ':r:' .. rid, 'b', 'S', 'j', 'U', 'f', 'F')
    local tasks = call('HGETALL', T .. ':t:' .. rid)
    local result = result_of(rid) or ''
    local leases, journals, dues, seen, held_of = {}, {}, {}, {}, {}

    local function look(step, stored)
      seen[step] = true
      local phase = stored and sub(stored, 1, 1) or 'R'
      if phase == 'R' and result == '' then
        questions = questions - #holders()
        local session, held = Run.holder_of(rid .. step)
        if session then
          leases[#leases + 1] = step
          leases[#leases + 1] = session
          leases[#leases + 1] = held
          held_of[step] = held
        end
      elseif phase == 'D' then
        dues[#dues + 1] = step
        dues[#dues + 1] = call('ZSCORE', T .. ':z', 'd' .. sub(stored, 10)) or '0'
      end
    end

    for i = 1, #tasks, 2 do
      if #tasks[i] == 2 then look(tasks[i], tasks[i + 1]) end
    end
    if not seen[STEP0] then look(STEP0, nil) end
    local uid = #rid == 16 and rid or record[4]
    for at = 1, #(record[3] or ''), 2 do
      local step = sub(record[3], at, at + 1)
      local counted = call('HMGET', T .. ':j:' .. uid .. step, 'n', 'u', 'q', 'w')
      local held, sequence = held_of[step], tonumber(counted[3] or 0)
      local waits = held and counted[4] == token_of(held) .. spack('>I4', sequence)
      journals[#journals + 1] = step
      journals[#journals + 1] = tonumber(counted[1] or 0)
      journals[#journals + 1] = tonumber(counted[2] or 0)
      journals[#journals + 1] = waits and 1 or 0
    end
    local outputs = call('HGETALL', T .. ':u:' .. rid)
    room = room - #entry - #result
    for i = 2, #outputs, 2 do room = room - #outputs[i] end
    local from, by = record[5] or '', record[6] or ''
    return { entry, result, record[1] or '', record[2] or '', tasks, outputs, leases, journals, dues, from, by }
  end

  local reply = {}
  for i = 2, #ARGV do
    reply[i - 1] = view(ARGV[i])
    if room <= 0 or questions <= 0 then break end
  end
  return reply
end
