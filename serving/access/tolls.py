"""How often somebody may ask: buckets that drain steadily (GCRA), of a key, a shopper and an address.

A client makes up as many shoppers as it likes, so its address is charged for each of them.

One script charges all buckets of a request in Redis, where every worker sees them. For lists it rides on the
round trip that reads the shopper's rows. Where Redis does not answer, a worker counts for itself. A bucket
that is empty again is gone: what is held is bounded by the rates themselves.
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from feature_repo.errors import ParamsError
from serving import prometheus
from serving.access.credentials import Caller
from serving.errors import RequestError

SCRIPT = Path(__file__).with_name("tolls.lua").read_text().encode()
BUCKET = "endcap:rate:"
PLACE = 1 << 40  # see tolls.lua
MOST_LOCAL = 50_000  # buckets that a worker holds while Redis is away
LONGEST_S = 3_600


@dataclass(frozen=True)
class Rate:
    """`burst` units at once, then `per_s`."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if self.per_s <= 0 or self.burst < 1 or self.burst > self.per_s * LONGEST_S:
            raise ParamsError(
                f"access.rates: burst {self.burst} at {self.per_s} per_s is not allowed; allowed: per_s over "
                f"0, burst from 1 to what drains in {LONGEST_S} s"
            )

    @property
    def drains_us(self) -> float:
        """How long one unit takes."""
        return 1e6 / self.per_s

    @property
    def piled_us(self) -> float:
        return self.burst * self.drains_us


@dataclass(frozen=True)
class RatesOf:
    """`key` for all that come by it; `shopper` and `address`, where known, unless the shop's servers ask."""

    key: Rate
    shopper: Rate
    address: Rate


@dataclass(frozen=True)
class Rates:
    """`access.rates` of params.yaml: of lists and of events."""

    lists: RatesOf
    events: RatesOf
    refused: Rate  # of one address, in each worker: beyond it no body over small_bytes is read
    small_bytes: int = 4_096  # read and refused within 0.3 ms, less than a list takes


class Bucket(NamedTuple):
    """What is charged; `of` is key, shopper or address."""

    of: str
    name: str
    rate: Rate


class Toll:
    """What one request is to be charged: `command` on the wire, whose reply `settle` is told."""

    def __init__(self, buckets: Sequence[Bucket], units: int, what: str, local: "LocalRates") -> None:
        self._buckets, self._units, self._what, self._local = buckets, units, what, local

    @property
    def command(self) -> bytes:
        """EVAL as bytes, which a client packs more slowly; with its text, for Redis may have forgotten it."""
        words = [b"EVAL", SCRIPT, b"%d" % len(self._buckets)]
        words += [bucket.name.encode() for bucket in self._buckets]
        for bucket in self._buckets:
            words += [b"%.3f" % bucket.rate.drains_us, b"%.0f" % bucket.rate.piled_us, b"%d" % self._units]
        return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%s\r\n" % (len(word), word) for word in words])

    def settle_here(self) -> None:
        """As `settle`, by what this worker counted: of what nobody reads a list or a row for."""
        self.settle(self._local.charge(self._buckets, self._units))

    def settle(self, reply: int | None) -> None:
        """RequestError 429 where a bucket is full; None: Redis did not answer."""
        if reply is None:
            prometheus.RATES_LOCAL.inc()
            reply = self._local.charge(self._buckets, self._units)
        if not reply:
            return
        number, ms = divmod(reply, PLACE)
        bucket = self._buckets[number - 1]
        prometheus.LIMITED.labels(self._what, bucket.of).inc()
        rate, seconds = bucket.rate, max(1, math.ceil(ms / 1000))
        allowed = f"{rate.burst} at once, then {rate.per_s:g} a second, for one {bucket.of} ({self._what})"
        raise RequestError(
            *(bucket.of, "more", allowed),
            status=429,
            next_step=f"ask again after {seconds} s; access.rates in params.yaml has the limits",
            retry_after_s=seconds,
        )


class LocalRates:
    """The same buckets in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}  # bucket -> us at which it is empty

    def charge(self, buckets: Sequence[Bucket], units: int, keep: bool = True) -> int:
        """As tolls.lua; without `keep` what it would say."""
        now = self._clock() * 1e6
        if len(self._until) > MOST_LOCAL:
            self._until = {name: at for name, at in self._until.items() if at > now}
            if len(self._until) > MOST_LOCAL:
                self._until.clear()
        charged = {}
        for number, (_, name, rate) in enumerate(buckets, 1):
            until = max(self._until.get(name, 0.0), now) + rate.drains_us * units
            if until - now > rate.piled_us:
                return number * PLACE + math.ceil((until - now - rate.piled_us) / 1000)
            charged[name] = until
        self._until |= charged if keep else {}
        return 0


class TollGate:
    """Makes the tolls of a worker."""

    def __init__(self, rates: Rates) -> None:
        self._rates, self._local = rates, LocalRates()

    def lists(self, caller: Caller, shopper: str | None, address: str | None, units: int = 1) -> Toll:
        """Of `units` lists."""
        return self._toll("lists", self._rates.lists, caller, shopper, address, units)

    def events(self, caller: Caller, shopper: str | None, address: str | None, units: int) -> Toll:
        """Of `units` events; `shopper` None where they are of several."""
        return self._toll("events", self._rates.events, caller, shopper, address, units)

    def refused(self, address: str | None) -> None:
        """Charge an address for what was not even worth a question."""
        self._local.charge(self._of_refused(address), 1)

    def require_manners(self, address: str | None, size: int) -> None:
        """RequestError 429 where an address was refused too often and its next body has `size` bytes.

        Not of what is small: to read it costs no more than to refuse it, and whoever shares the address with
        somebody ill-mannered keeps his lists.
        """
        if size <= self._rates.small_bytes:
            return
        buckets = self._of_refused(address)
        if reply := self._local.charge(buckets, 1, keep=False):
            Toll(buckets, 1, "refused", self._local).settle(reply)

    def _of_refused(self, address: str | None) -> list[Bucket]:
        name = f"{BUCKET}refused:address:{_short(address or '')}"
        return [Bucket("address", name, self._rates.refused)] if address is not None else []

    def _toll(
        self, what: str, rates: RatesOf, caller: Caller, shopper: str | None, address: str | None, units: int
    ) -> Toll:
        found = [Bucket("key", f"{BUCKET}{what}:key:{caller.name}", rates.key)]
        if not caller.trusted:
            if shopper is not None:
                found.append(Bucket("shopper", f"{BUCKET}{what}:shopper:{_short(shopper)}", rates.shopper))
            if address is not None:
                found.append(Bucket("address", f"{BUCKET}{what}:address:{_short(address)}", rates.address))
        return Toll(found, units, what, self._local)


def _short(name: str) -> str:
    """Names from outside reach no key."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
