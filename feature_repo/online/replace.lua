-- Fields of a hash, each replaced where it still holds what the writer saw: who saw more has written meanwhile.
-- KEYS: the hash; ARGV: item, what was seen ('' for nothing), what replaces it ('' to delete), again and again.
for i = 1, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') == ARGV[i + 1] then
    if ARGV[i + 2] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
    else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
  end
end
