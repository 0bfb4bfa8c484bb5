--! no-writes
-- Reads which children one journal has, a piece at a time, newest first as far as their slots tell.
-- ARGV: J, family of chunks ('c' or 'e'), number of the chunk in its order or -1 for the last, chunks at most
-- Reply: number of the chunk that comes next or -1, then for each child: slot, generation (4) created (6).
local J, family, number, chunks = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if number < 0 then
  if family == 'c' then
    number = call('LLEN', T .. ':b:' .. J) - 1
  else
    number = math.ceil(tonumber(call('HGET', T .. ':j:' .. J, 'k') or 0) / 64) - 1
  end
end
local reply = { -1 }
while number >= 0 and chunks > 0 do
  local chunk = family == 'c' and call('LINDEX', T .. ':b:' .. J, number) or spack('>I4', number)
  local first = (sunpack('>I4', chunk)) * 64
  for i, entry in ipairs(call('LRANGE', T .. ':' .. family .. ':' .. J .. chunk, 0, -1)) do
    if family == 'c' and entry ~= '' then
      reply[#reply + 1] = 'i' .. spack('>I4', first + i - 1)
      reply[#reply + 1] = sub(entry, 1, 10)
    elseif family == 'e' and byte(entry, 1) == 107 then
      reply[#reply + 1] = sub(entry, 1, 17)
      reply[#reply + 1] = sub(entry, 18, 27)
    end
  end
  number, chunks = number - 1, chunks - 1
end
reply[1] = number
return reply
