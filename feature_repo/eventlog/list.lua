-- Changes of items, each an entry for one group. Answers as admit.lua, without marks.
-- KEYS: applied, the partitions, notes for the offline log; ARGV: partitions, limit of the backlog or -1, groups, the group that applies
-- them, then partition and JSON of each.
local partitions, only, found = tonumber(ARGV[1]), ARGV[5], {}
local waiting = waiting_beyond(tonumber(ARGV[2]), partitions, {ARGV[3], ARGV[4]})
if not waiting and tonumber(ARGV[2]) >= 0 then
  local notes = redis.call('XLEN', KEYS[#KEYS])
  if notes > tonumber(ARGV[2]) then waiting = notes end
end
if waiting then return waiting end
for at = 6, #ARGV, 2 do
  found[#found + 1] = ARGV[at] .. ':' .. append(KEYS[ARGV[at] + 2], 'event', ARGV[at + 1], 'only', only)
end
return found
