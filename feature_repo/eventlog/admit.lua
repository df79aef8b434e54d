-- One event, one entry, also where it is sent again: the mark and the entry are written together or not at all. The mark keeps
-- "<partition>:<position>", so that a resend knows what to wait for. A number instead of the list: so many
-- entries wait to be applied, and nothing was written.
-- KEYS: applied, the partitions, the marks; ARGV: partitions, lifetime of a mark (s), limit of the backlog or
-- -1, groups, then partition and JSON of each event.
local partitions, ttl, limit, groups = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), {ARGV[4], ARGV[5]}
local waiting = waiting_beyond(limit, partitions, groups)
if waiting then return waiting end
local found, at = {}, 6
for i = partitions + 2, #KEYS do
  local mark = redis.call('GET', KEYS[i])
  if mark then
    redis.call('EXPIRE', KEYS[i], ttl) -- a write, or WAIT would say nothing of a first try that was never on a replica
    found[#found + 1] = {mark, 1}
  else
    mark = ARGV[at] .. ':' .. append(KEYS[ARGV[at] + 2], 'event', ARGV[at + 1])
    redis.call('SET', KEYS[i], mark, 'EX', ttl)
    found[#found + 1] = {mark, 0}
  end
  at = at + 2
end
return found
