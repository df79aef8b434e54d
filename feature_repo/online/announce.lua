-- The version and its entries appear together: who saw version v has seen every change up to v.
-- KEYS: version, changed; ARGV: the items.
local version = redis.call('INCR', KEYS[1])
for i = 1, #ARGV do redis.call('ZADD', KEYS[2], version, ARGV[i]) end
return version
