"""The scripts of the log in Redis Streams: append to a partition, and how far each group is behind."""

from pathlib import Path
from typing import Any

from feature_repo.eventlog.contract import Lag
from feature_repo.eventlog.keys import APPLIED, GROUPS, stream_key, stream_keys


def script(name: str) -> str:
    """The text of <name>.lua in this room; what it needs of log.lua stands before it."""
    return Path(__file__).with_name(f"{name}.lua").read_text()


LUA = script("log")
APPEND = LUA + "return append(KEYS[1], unpack(ARGV))"
LAG = LUA + script("lag")


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
