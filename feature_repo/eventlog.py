"""The log of live events: its names, the partition of a visit, and how far behind its readers are.

endcap:events:<p>          Redis Stream of partition p; id <arrival, ms>-<n>, the n-th entry of its partition
endcap:stream:applied      hash "<group>:<p>" -> position of the newest entry that is in the group's rows
endcap:stream:horizon      hash: rows hold what was stamped before `ts`; "<p>" -> end of the log then
endcap:stream:members      sorted set of the live consumer processes by their last heartbeat (ms)
endcap:stream:lease:<task> name of the process that works on the task
endcap:done:<group>:<h>    set of the 8-byte digests of events of hour h that are in the group's rows
endcap:dead                stream of entries that could not be applied, with the reason

A position is the id of an entry, "1767225600000-17": its last number counts the entries of the partition.
Where a shop has Kafka, a topic takes the place of `endcap:events:<p>` (feature_repo/eventlog_kafka.py) and a
position is an offset, "17"; everything else stays in Redis, beside the rows that it tells about.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from feature_repo.errors import ParamsError

EVENTS, DEAD = "endcap:events:", "endcap:dead"
APPLIED, HORIZON = "endcap:stream:applied", "endcap:stream:horizon"
MEMBERS, LEASE, DONE = "endcap:stream:members", "endcap:stream:lease:", "endcap:done:"
VISITORS, ITEMS = "visitors", "items"
GROUPS = (VISITORS, ITEMS)


@dataclass(frozen=True)
class StreamParams:
    """`stream:`"""

    log: str
    partitions: int
    processes: int
    batch: int
    block_ms: int
    lease_ms: int
    cached_states: int
    keep_hours: int
    remember_hours: int
    max_backlog: int
    report_s: float

    def __post_init__(self) -> None:
        if self.remember_hours <= self.keep_hours:
            raise ParamsError(
                f"stream.remember_hours: {self.remember_hours} is not allowed; allowed: more than keep_hours "
                f"({self.keep_hours}), or an entry that is read again would count twice"
            )


class KafkaTopic(NamedTuple):
    """The topic that holds the log."""

    servers: str  # host:port, several separated by commas
    name: str
    partitions: int


def kafka_topic(params: StreamParams) -> KafkaTopic | None:
    """The topic that ENDCAP_EVENT_LOG, else `stream.log`, names; None where the log is in Redis.

    "kafka://127.0.0.1:9092/events" is KafkaTopic("127.0.0.1:9092", "events", 4). Raises ParamsError.
    """
    text = os.environ.get("ENDCAP_EVENT_LOG", params.log)
    if text == "redis":
        return None
    parts = urlsplit(text)
    name = parts.path.removeprefix("/")
    if parts.scheme != "kafka" or not parts.netloc or not re.fullmatch(r"[\w.-]{1,249}", name, re.ASCII):
        raise ParamsError(
            f"stream.log: {text!r} is not allowed; allowed: redis, or kafka://HOST:PORT[,HOST:PORT]/TOPIC. "
            "Next: change it in params.yaml or in ENDCAP_EVENT_LOG"
        )
    return KafkaTopic(parts.netloc, name, params.partitions)


class Lag(NamedTuple):
    """How far a group is behind the log."""

    events: int
    seconds: float  # since the oldest entry that is not applied arrived


def stream_key(partition: int) -> str:
    """The Redis Stream of a partition."""
    return f"{EVENTS}{partition}"


def stream_keys(partitions: int) -> list[str]:
    """The Redis Streams of all partitions, in their order."""
    return [stream_key(p) for p in range(partitions)]


def partition_of(session_id: str, partitions: int) -> int:
    """The partition of a visit, whoever it turns out to belong to; the same in every process and release.

    >>> partition_of("U123", 4)
    3
    """
    digest = hashlib.blake2b(session_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def order(position: str | bytes | None) -> tuple[int, ...]:
    """A position in the order of its partition; None stands before all of them.

    >>> order(b"1700000000000-3"), order("17"), order(None)
    ((1700000000000, 3), (17,), ())
    """
    if position is None:
        return ()
    text = position.decode() if isinstance(position, bytes) else position
    return tuple(int(part) for part in text.split("-"))


def applied_field(group: str, partition: int) -> str:
    """Field of the hash APPLIED."""
    return f"{group}:{partition}"


def applied_fields(partitions: int) -> list[str]:
    """All fields of the hash APPLIED."""
    return [applied_field(group, p) for group in GROUPS for p in range(partitions)]


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
