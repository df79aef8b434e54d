"""How old each thing is that an answer rests on: a metric, a line of `endcap status`, a limit of /readyz.

    release     state of the rollout, last read        items    prices, stock and counts, last refreshed
    consumers   oldest event that is in no row         health   what the arms did, last handed to the guard
    exposures   log of what was shown, last written    lag      the consumers' delay, last measured
    report      what this worker serves, last told     disk     room for what Redis writes, last looked at
    vigil       the canary's guard, last looked at     ages     these metrics
    rules       the shop's rules, last read            shadow   lists that nobody is shown, last looked for
    rails       lists made beforehand, last looked for flags    the experiments, last read
    signing     keys of request ids, last read
    erased      who is to be left out, last read
    explore     what is on offer to be explored, last read
    understudy  the release in the shadow, last looked for
    interleaver the release that is mixed in, last looked for

A task that is stuck, cancelled or dead does not beat, so its age grows, whatever the cause.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from serving import prometheus

NEXT = {"consumers": "endcap up stream"}  # what is mended by starting something; the rest are of this worker


@dataclass(frozen=True)
class Liveness:
    """`liveness:`, the oldest that each thing may be, in seconds; older than that, /readyz answers 503."""

    release: float
    items: float
    consumers: float
    health: float
    exposures: float
    lag: float
    signing: float
    disk: float
    report: float
    rules: float
    flags: float
    shadow: float
    erased: float
    vigil: float
    rails: float
    ages: float
    explore: float
    understudy: float
    interleaver: float


class Pulse:
    """The heartbeats of one worker; `clock` counts seconds and is not set back when the wall's is."""

    def __init__(self, limits: Liveness, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits: Mapping[str, float] = asdict(limits)
        self._clock = clock
        self._causes: dict[str, str] = {}
        self.begin()

    def begin(self) -> None:
        """Ages count from here."""
        self._beats = dict.fromkeys(self.limits, self._clock())

    def beat(self, thing: str, age_s: float = 0.0) -> None:
        """`thing` is known to be right, as of `age_s` seconds ago. KeyError for one without a limit."""
        if thing not in self._beats:
            raise KeyError(thing)
        self._beats[thing] = self._clock() - age_s
        self._causes.pop(thing, None)

    def missed(self, thing: str, cause: BaseException) -> None:
        """Why `thing` did not beat."""
        self._causes[thing] = f"{type(cause).__name__}: {cause}"

    def ages(self) -> dict[str, float]:
        """Seconds since the last beat, else since the worker began."""
        now = self._clock()
        return {thing: max(now - beat, 0.0) for thing, beat in self._beats.items()}

    def overdue(self) -> list[str]:
        """What is too old, in words; empty where all is well."""
        return [
            f"{thing}: {age:.0f} s old, at most liveness.{thing} = {self.limits[thing]:g} s are allowed"
            + (f" ({self._causes[thing]})" if thing in self._causes else "")
            + (f"; next: `{NEXT[thing]}`" if thing in NEXT else "")
            for thing, age in self.ages().items()
            if age > self.limits[thing]
        ]

    async def publish(self) -> None:
        """Bring the metrics up to date."""
        for thing, age in self.ages().items():
            prometheus.AGE_SECONDS.labels(thing).set(age)
            prometheus.AGE_LIMIT.labels(thing).set(self.limits[thing])
