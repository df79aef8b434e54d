-- GCRA over several buckets: a request passes all of them, or is charged to none.
-- KEYS: the buckets; ARGV of each: us that one unit takes to drain, us that may have piled up, units.
-- Answers 0, else the number of the bucket that is full and the ms until it is not: 2^40 * number + ms.
local time = redis.call('TIME')
local now, charged = time[1] * 1000000 + time[2], {}
for i = 1, #KEYS do
  local at = 3 * (i - 1)
  local drains, piled = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local until_us = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now) + drains * ARGV[at + 3]
  if until_us - now > piled then
    return i * 1099511627776 + math.ceil((until_us - now - piled) / 1000)
  end
  charged[i] = until_us
end
for i = 1, #KEYS do
  redis.call('SET', KEYS[i], string.format('%.0f', charged[i]), 'PX', math.ceil((charged[i] - now) / 1000) + 1)
end
return 0
