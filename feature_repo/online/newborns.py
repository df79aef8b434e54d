"""Vectors of items that came after a release was fitted: `endcap embed` writes, every worker appends them.

endcap:newborns:<space>  hash  item id -> when it was first said (int64 us), digest of what the vector is made
                               of (8 bytes), the item tower's output (float32); `newborns.most` items
endcap:embed             hash  `at_us`: when `endcap embed` looked last, by Redis' clock

A space (serving/release/bundle.py) is a catalogue and the towers that were fitted on it. The hash goes
`newborns.keep_hours` after the last time that its release was seen alive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.clock import SECOND_US
from feature_repo.online import changes

NEWBORNS, EMBED = "endcap:newborns:", "endcap:embed"
DIGEST_BYTES = 8
REPLACE = Path(__file__).with_name("replace.lua").read_text()


@dataclass(frozen=True)
class NewbornParams:
    """`newborns:`"""

    most: int  # of a release; beyond it an item waits for the next fit
    keep_hours: int
    poll_s: float  # between two looks of `endcap embed`
    silent_s: float  # without a sign of life it counts as dead


class Newborn(NamedTuple):
    """One item: first said at `born` (us); `vector` float32 (d,), not normalised, was made of `inputs`."""

    born: int
    inputs: bytes
    vector: npt.NDArray[np.float32]


def read(redis: Any, space: str, items: Sequence[str]) -> dict[str, Newborn]:
    """Those of `items` that have a vector in `space`."""
    if not items:
        return {}
    found = redis.hmget(NEWBORNS + space, items)
    return {item: _decoded(raw) for item, raw in zip(items, found, strict=True) if raw}


def names(redis: Any, space: str) -> list[str]:
    """Every item that has a vector in `space`, sorted."""
    return sorted(item.decode() for item in redis.hkeys(NEWBORNS + space))


def write(
    redis: Any, space: str, made: Mapping[str, Newborn | None], held: Mapping[str, Newborn], keep_hours: int
) -> None:
    """Put the vectors of `made` there, take the items that are None away and announce them, all at once.

    `held` is what was there before the catalogue was read for `made`. An item that has another vector by now
    keeps it: whoever wrote it read the catalogue later, and an old price would else come back.
    """
    key = NEWBORNS + space
    fields: list[str | bytes] = []
    for item, newborn in made.items():
        before = held.get(item)
        fields += [item, _encoded(before) if before else b"", _encoded(newborn) if newborn else b""]
    with redis.pipeline(transaction=True) as pipe:
        pipe.eval(REPLACE, 1, key, *fields)
        pipe.expire(key, keep_hours * 3600)
        changes.announce(pipe, list(made))
        pipe.execute()


def renew(redis: Any, space: str, keep_hours: int) -> None:
    """The release of `space` lives."""
    redis.expire(NEWBORNS + space, keep_hours * 3600)


def count(redis: Any, space: str) -> int:
    """How many items have a vector in `space`."""
    return int(redis.hlen(NEWBORNS + space))


def beat(redis: Any) -> None:
    """Somebody looks for new items."""
    redis.hset(EMBED, "at_us", _now_us(redis))


def age_s(redis: Any) -> float | None:
    """Seconds since somebody looked last; None where nobody ever did.

    A look from ahead of Redis' clock was before that clock was set back: it counts as so old.
    """
    at_us = redis.hget(EMBED, "at_us")
    return None if at_us is None else abs(_now_us(redis) - int(at_us)) / SECOND_US


def _now_us(redis: Any) -> int:
    seconds, micros = redis.time()
    return int(seconds) * SECOND_US + int(micros)


def _encoded(newborn: Newborn) -> bytes:
    vector = np.asarray(newborn.vector, "<f4").tobytes()
    return newborn.born.to_bytes(8, "little", signed=True) + newborn.inputs + vector


def _decoded(raw: bytes) -> Newborn:
    head = 8 + DIGEST_BYTES
    vector = np.frombuffer(raw, "<f4", offset=head).astype(np.float32)
    return Newborn(int.from_bytes(raw[:8], "little", signed=True), raw[8:head], vector)
