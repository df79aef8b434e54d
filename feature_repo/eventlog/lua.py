"""The scripts of the log in Redis Streams: append to a partition, and how far each group is behind."""

from __future__ import annotations

from typing import Any

from feature_repo.eventlog.contract import Lag
from feature_repo.eventlog.keys import APPLIED, GROUPS, stream_key, stream_keys

# Functions of the scripts that append to partitions or count entries. An entry's n continues also where the
# newest entries were trimmed away, and arrival never goes back, whatever the clock does.
LUA = """
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local known = {}
local function parse(id)
  local ms, n = string.match(id, '(%d+)-(%d+)')
  return {tonumber(ms), tonumber(n)}
end
local function about(key)
  if not known[key] then
    local found = {newest = {0, 0}, before = 0}
    if redis.call('EXISTS', key) == 1 then
      local info = redis.call('XINFO', 'STREAM', key)
      for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then found.newest = parse(info[i + 1]) end
        if info[i] == 'first-entry' and info[i + 1] then found.first = parse(info[i + 1][1]) end
      end
      found.before = found.first and found.first[2] - 1 or found.newest[2]
    end
    known[key] = found
  end
  return known[key]
end
local function append(key, ...)
  local last = about(key).newest
  last[1], last[2] = math.max(last[1], now_ms), last[2] + 1
  return redis.call('XADD', key, string.format('%.0f-%.0f', last[1], last[2]), ...)
end
local function behind(key, applied)
  local found = about(key)
  local done = applied and math.max(parse(applied)[2], found.before) or found.before
  return math.max(found.newest[2] - done, 0)
end
"""
APPEND = LUA + "return append(KEYS[1], unpack(ARGV))"
# KEYS: applied, the partitions; ARGV: the groups -> {entries behind, ms since the oldest arrived} of each
LAG = (
    LUA
    + """
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
"""
)


def append(redis: Any, partition: int, event: bytes, only: str | None = None) -> Any:
    """Append one entry; `only` names the group that is to apply it. The position, awaitable as the client."""
    fields = [b"event", event] + ([b"only", only] if only else [])
    return redis.eval(APPEND, 1, stream_key(partition), *fields)


def lag_arguments(partitions: int) -> list[Any]:
    """Arguments of `eval` for the script LAG."""
    keys = [APPLIED, *stream_keys(partitions)]
    return [LAG, len(keys), *keys, *GROUPS]


def lags(answer: Any) -> dict[str, Lag]:
    """Group -> lag, from the answer of the script LAG.

    >>> lags([[3, 1500], [0, 0]])
    {'visitors': Lag(events=3, seconds=1.5), 'items': Lag(events=0, seconds=0.0)}
    """
    return {name: Lag(found[0], found[1] / 1000) for name, found in zip(GROUPS, answer, strict=True)}
