"""Which rung a request may still have, chosen before any work is done for it.

    wait = its age, from its last byte's arrival, + what is owed to the requests begun before it

A rung is given while `wait` is within its limit. What a request owes is the price of its rung, measured as it
is paid. A burst may queue up to these limits. A queue that has not been empty for `standing_ms` is no burst
but too much traffic: waiting gains nothing then, and the limits are `strained` times as long. CoDel tells the
two apart so (Nichols and Jacobson 2012; by the time since the queue was empty: Maurer 2015).
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

from serving import prometheus

WEIGHT = 0.05  # of the newest price in the running mean
DEAREST_S = 0.1  # of one list; a worker that was stopped for a while has not become slow

# When this task's request had arrived whole, on time.perf_counter's clock; None where nobody saw it come.
ARRIVED: ContextVar[float | None] = ContextVar("arrived", default=None)


class Rung(IntEnum):
    """From the best list to the cheapest one."""

    LIVE = 0
    VECTOR = 1
    SHOPPER = 2
    SHARED = 3  # cohort and category: in the worker's memory, no stored row is read
    BESTSELLERS = 4


@dataclass(frozen=True)
class Cascade:
    """Section `cascade` of params.yaml: up to which wait, in ms, a list is made so."""

    live_ms: float
    vector_ms: float
    shopper_ms: float
    shared_ms: float
    strained: float  # of these, while the queue stands
    standing_ms: float  # without an instant at which nothing was owed
    overhead_ms: float  # of every request, its HTTP included


@dataclass(slots=True)
class Place:
    """In the queue: the rung, seconds owed for it, how long the request had waited, how many lists it has."""

    rung: Rung
    price_s: float
    age_s: float
    lists: int


class Admission:
    """The queue of one worker. All of it runs in the event loop's thread."""

    def __init__(self, params: Cascade, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._limits_s = [
            limit / 1000 for limit in (params.live_ms, params.vector_ms, params.shopper_ms, params.shared_ms)
        ]
        self._strained, self._standing_s = params.strained, params.standing_ms / 1000
        self._overhead_s = params.overhead_ms / 1000
        self._prices_s = [0.002, 0.0008, 0.0005, 0.0003, 0.0002]  # until they are measured
        self._owed_s, self._begun, self._empty_at = 0.0, 0, clock()

    def enter(self, lists: int = 1) -> Place:
        """Take a place in the queue; `leave` gives it back."""
        now = self._clock()
        arrived = ARRIVED.get()
        age_s = max(now - arrived, 0.0) if arrived is not None else 0.0
        if not self._begun:
            self._empty_at = now
        scale = self._strained if now - self._empty_at > self._standing_s else 1.0
        wait_s = age_s + self._owed_s
        rung = Rung.BESTSELLERS
        for at, limit_s in enumerate(self._limits_s):
            if wait_s <= limit_s * scale:
                rung = Rung(at)
                break
        place = Place(rung, self._prices_s[rung] * lists + self._overhead_s, age_s, lists)
        self._owed_s += place.price_s
        self._begun += 1
        prometheus.REQUEST_AGE.observe(age_s)
        return place

    def leave(self, place: Place) -> None:
        """Its answer is made."""
        self._begun -= 1
        self._owed_s = self._owed_s - place.price_s if self._begun else 0.0

    def paid(self, rung: Rung, seconds: float) -> None:
        """One list of `rung` took so long, waits for others not counted."""
        before = self._prices_s[rung]
        self._prices_s[rung] = before + WEIGHT * (min(seconds, DEAREST_S) - before)

    def publish(self) -> None:
        """Bring the metrics up to date."""
        for rung, price_s in zip(Rung, self._prices_s, strict=True):
            prometheus.RUNG_SECONDS.labels(rung.name.lower()).set(price_s)
