-- KEYS: applied, the partitions; ARGV: the groups -> {entries behind, ms since the oldest arrived} of each
local answer = {}
for g = 1, #ARGV do
  local total, oldest = 0, now_ms
  for i = 2, #KEYS do
    local applied = redis.call('HGET', KEYS[1], ARGV[g] .. ':' .. (i - 2))
    local count = behind(KEYS[i], applied)
    if count > 0 then
      local found = redis.call('XRANGE', KEYS[i], applied and '(' .. applied or '-', '+', 'COUNT', 1)
      if found[1] then oldest = math.min(oldest, parse(found[1][1])[1]) end
    end
    total = total + count
  end
  answer[g] = {total, now_ms - oldest}
end
return answer
