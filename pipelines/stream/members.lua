-- A beat of one consumer process.
-- KEYS: members; ARGV: name, ms after which a member counts as dead -> names of the live ones, in their order.
-- A beat of the future is of before the clock was set back: who lives beats again.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
local names = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(names)
return names
