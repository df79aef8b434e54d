-- Which events still count, of those whose request id is in order or that have none.
-- KEYS: of each event its list's marks ('' for none), its visit's counts, its client's counts ('' for none).
-- ARGV: lifetime of counts (s), most fields of a client, then of each event: kind, item, slot, identity, lifetime of
-- the marks (s), most of the kind and item in a visit, of the kind in a visit (0: no bound), of kind and item by a client.
-- Answers a digit for each event: 0 counts, 1 repeated, 2 faster than people.
local lifetime, widest, told = ARGV[1], tonumber(ARGV[2]), {}
local function over(key, field, most)
  local count = redis.call('HINCRBY', key, field, 1)
  if count == 1 then redis.call('EXPIRE', key, lifetime) end
  return most > 0 and count > most
end
for i = 1, #KEYS / 3 do
  local list, visit, client, at = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i], 2 + 8 * (i - 1)
  local kind, item, verdict = ARGV[at + 1], ARGV[at + 2], '0'
  if list ~= '' then
    local mark = kind .. ARGV[at + 3]
    if redis.call('HSETNX', list, mark, ARGV[at + 4]) == 1 then
      redis.call('EXPIRE', list, ARGV[at + 5])
    elseif redis.call('HGET', list, mark) ~= ARGV[at + 4] then
      verdict = '1'
    end
  end
  if verdict == '0' then
    local busy = over(visit, kind .. item, tonumber(ARGV[at + 6]))
    busy = over(visit, kind, tonumber(ARGV[at + 7])) or busy
    if client ~= '' then
      busy = redis.call('HLEN', client) > widest or over(client, kind .. item, tonumber(ARGV[at + 8])) or busy
    end
    if busy then verdict = '2' end
  end
  told[i] = verdict
end
return table.concat(told)
