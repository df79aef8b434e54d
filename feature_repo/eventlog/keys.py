"""The log of live events: its names in Redis, the partition of a visit, the order of positions.

endcap:events:<p>          Redis Stream of partition p; id <arrival, ms>-<n>, the n-th entry of its partition
endcap:stream:applied      hash "<group>:<p>" -> position of the newest entry that is in the group's rows
endcap:stream:horizon      hash: rows hold what was stamped before `ts`; "<p>" -> end of the log then
endcap:stream:members      sorted set of the live consumer processes by their last heartbeat (ms)
endcap:stream:lease:<task> name of the process that works on the task
endcap:done:<group>:<h>    set of identities (first 8 bytes) of events of hour h that are in the group's rows
endcap:seen:<identity>     "<partition>:<position>" of an event that was written, for a day
endcap:dead                stream of entries that could not be applied, with the reason
endcap:items:said          stream of applied changes of items, on their way to the offline log

An entry is an event, or a change of an item, whose type is ITEM_CHANGE: it lies in the partition of its item
and names the group `items`, so that the visitors' tasks pass over it.

A position is the id of an entry, "1767225600000-17": its last number counts the entries of the partition.
Where a shop has Kafka, a topic takes the place of `endcap:events:<p>` (kafka_client.py) and a
position is an offset, "17"; everything else stays in Redis, beside the rows that it tells about.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from feature_repo.errors import ParamsError
from feature_repo.events import identity

EVENTS, DEAD = "endcap:events:", "endcap:dead"
APPLIED, HORIZON = "endcap:stream:applied", "endcap:stream:horizon"
MEMBERS, LEASE, DONE = "endcap:stream:members", "endcap:stream:lease:", "endcap:done:"
VISITORS, ITEMS = "visitors", "items"
GROUPS = (VISITORS, ITEMS)
SEEN = "endcap:seen:"
SAID = "endcap:items:said"
ITEM_CHANGE = "item_change"  # no type of an event


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
    unlisted_hours: int
    max_backlog: int
    report_s: float
    stuck_s: float
    replicas: int
    replicas_ms: int

    def __post_init__(self) -> None:
        if self.remember_hours <= self.keep_hours:
            raise ParamsError(
                f"stream.remember_hours: {self.remember_hours} is not allowed; allowed: more than keep_hours "
                f"({self.keep_hours}), or an entry that is read again would count twice"
            )
        for name, least in (("replicas", 0), ("replicas_ms", 1)):  # WAIT takes 0 ms for ever
            if (value := getattr(self, name)) < least:
                raise ParamsError(f"stream.{name}: {value} is not allowed; allowed: {least} or more")


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


def stream_key(partition: int) -> str:
    """The Redis Stream of a partition."""
    return f"{EVENTS}{partition}"


def stream_keys(partitions: int) -> list[str]:
    """The Redis Streams of all partitions, in their order."""
    return [stream_key(p) for p in range(partitions)]


def partition_of(key: str, partitions: int) -> int:
    """The partition of a visit, whoever it turns out to belong to, or of an item; the same everywhere.

    >>> partition_of("U123", 4)
    3
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
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


def seen_key(event: Mapping[str, Any]) -> str:
    """The mark of an event that was written: a fixed length, whatever it holds."""
    return SEEN + identity(event).hex()
