"""A list that was made beforehand: `endcap rails` writes it, workers and `endcap email` read it.

endcap:rails:of:<digest>  `Rail` as JSON, of a shopper, or of a visit without one; the digest is of the id
endcap:rails:shared       hash: `at_us`, and `rails`, `Shared` as JSON
endcap:rails:job          hash: `at_us`, when `endcap rails --watch` last looked, by Redis' clock

The first two expire at `rails.max_age_s`. A rail is served while it is younger than that and its release is
the one that answers; whoever reads it checks both, so that a Redis that keeps it too long changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from feature_repo.clock import SECOND_US
from serving.types import Context

OF, SHARED, JOB = "endcap:rails:of:", "endcap:rails:shared", "endcap:rails:job"
TOO_OLD, OTHER_RELEASE, ABSENT = "too_old", "other_release", "absent"


@dataclass(frozen=True)
class RailParams:
    """Section `rails` of params.yaml."""

    every_s: float  # between two rounds of `endcap rails --watch`
    max_age_s: float  # an older rail is not served
    seen_hours: float  # who was shown a list within
    shoppers: int  # of those, the newest so many; a visit without a shopper counts as one
    length: int  # items of a rail: what must not be shown by then is made up for by the later ones
    shopper_surfaces: tuple[str, ...]
    shared_surfaces: tuple[str, ...]  # those that start from no product
    cohorts: int  # pairs of device and country, the most frequent
    categories: int  # paths, those with most contacts
    look_s: float  # how often a worker looks for other shared rails
    silent_s: float  # without a sign of life `endcap rails --watch` counts as dead


@dataclass(frozen=True)
class Rail:
    """A shopper's lists, made at `at_us` by the release `bundle`; `mails`: surface -> (anchors, items)."""

    at_us: int
    bundle: str
    lists: Mapping[str, list[str]] = field(default_factory=dict)
    mails: Mapping[str, tuple[list[str], list[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shared:
    """The lists of many: surface -> cohort -> items, category path -> items."""

    at_us: int
    bundle: str
    cohorts: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    categories: Mapping[str, list[str]] = field(default_factory=dict)


def encode(rail: Rail | Shared) -> bytes:
    return orjson.dumps(rail)


def decode(raw: bytes, kind: type[Any] = Rail) -> Any:
    """What `encode` made; ValueError or TypeError for anything else."""
    return kind(**orjson.loads(raw))


def stale(rail: Rail | Shared, bundle: str, now: int, max_age_s: float) -> str | None:
    """Why `rail` must not be served at `now` (us) by the release `bundle`; None where it may be."""
    if not -SECOND_US <= now - rail.at_us <= max_age_s * SECOND_US:
        return TOO_OLD
    return None if rail.bundle == bundle else OTHER_RELEASE


def unit(user_id: str | None, session_id: str | None) -> str | None:
    """Whose rail a request may have: the shopper's, else the visit's.

    >>> unit("ann", "s1"), unit(None, "s1"), unit(None, None)
    ('u:ann', 's:s1', None)
    """
    if user_id is not None:
        return f"u:{user_id}"
    return None if session_id is None else f"s:{session_id}"


def key_of(unit: str) -> str:
    """Key of a unit's rail; ids come from outside, so their digest stands in it."""
    return OF + blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def cohort_of(context: Context) -> str:
    """Device and country as the storefront tells them.

    >>> cohort_of(Context(device="mobile", country="Germany")), cohort_of(Context())
    ('mobile|germany', '|')
    """
    return f"{(context.device or '').lower()}|{(context.country or '').lower()}"


def beat(redis: Any) -> None:
    """Somebody makes rails."""
    redis.hset(JOB, "at_us", _now_us(redis))


def age_s(redis: Any) -> float | None:
    """Seconds since somebody made rails, or looked whether any are due; None where nobody ever did."""
    at_us = redis.hget(JOB, "at_us")
    return None if at_us is None else abs(_now_us(redis) - int(at_us)) / SECOND_US


def _now_us(redis: Any) -> int:
    seconds, micros = redis.time()
    return int(seconds) * SECOND_US + int(micros)
