-- KEYS: lease, partitions; ARGV: group, holder, entries of each partition. 0: the lease is another's.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
local command = {'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS'}
for i = 2, #KEYS do command[#command + 1] = KEYS[i] end
for i = 2, #KEYS do command[#command + 1] = '>' end
return redis.call('XREADGROUP', unpack(command))
