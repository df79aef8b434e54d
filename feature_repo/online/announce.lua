-- The version and its entries appear together: who saw version v has seen every change up to v.
-- The list is bounded: of what was taken out of it only the newest version is kept, and who stands before that
-- reads everything. A tenth is taken out at once, so that it is rare.
-- KEYS: version, changed, floor; ARGV: how many to keep, then the items.
local version = redis.call('INCR', KEYS[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[2], version, ARGV[i]) end
local keep, count = tonumber(ARGV[1]), redis.call('ZCARD', KEYS[2])
if count > keep then
  local last = count - math.floor(keep * 0.9) - 1
  local newest = redis.call('ZRANGE', KEYS[2], last, last, 'WITHSCORES')
  redis.call('SET', KEYS[3], string.format('%.0f', tonumber(newest[2])))
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', newest[2])
end
return version
