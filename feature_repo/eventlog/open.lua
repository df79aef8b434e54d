-- KEYS: lease, partitions; ARGV: group, holder, then the position of each partition. Nothing stays pending of
-- what earlier readers took: it is delivered again unless it stands at or before the position.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
for i = 2, #KEYS do
  redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[1], '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[i], ARGV[1])
  redis.call('XGROUP', 'CREATE', KEYS[i], ARGV[1], ARGV[i + 1])
end
return 1
