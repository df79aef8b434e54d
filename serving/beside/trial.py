"""Which release is computed beside the answers; only this module knows the key.

endcap:shadow   JSON of the Trial below; it ends by itself, and with it what workers hold of the release
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import orjson
from redis import Redis

from feature_repo.errors import ParamsError
from serving.release import state
from serving.release.state import Act, Release, RolloutError

SHADOW = "endcap:shadow"
HOUR_S = 3600


@dataclass(frozen=True)
class ShadowParams:
    """Section `shadow` of params.yaml."""

    share: float  # of the live answers, beside which the release makes its own
    hours: float  # then it ends by itself: a worker holds one release more meanwhile
    poll_s: float  # how often a worker looks for one
    required: bool  # whether `endcap rollout start` asks for it
    min_pairs: int  # fewer are no report
    wait_s: float  # how long `endcap retrain` and `endcap shadow start --wait` wait for as many

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ParamsError(f"shadow.share: {self.share} is not allowed; allowed: above 0, up to 1")


@dataclass(frozen=True)
class Trial:
    """`began_us`: Redis' clock, microseconds UTC."""

    release: Release
    share: float
    began_us: int

    @classmethod
    def of(cls, stored: bytes | str) -> Self:
        found: dict[str, Any] = orjson.loads(stored)
        return cls(Release(**found["release"]), found["share"], found["began_us"])


def read(redis: Redis) -> Trial | None:
    """The release in the shadow; None where none is."""
    found: Any = redis.get(SHADOW)
    return Trial.of(found) if found else None


def begin(redis: Redis, release: Release, params: ShadowParams, act: Act) -> Trial:
    """Let every worker compute `release` beside its answers. Raises RolloutError while a canary is on trial.

    Whatever was in the shadow before leaves it; the same release again begins anew.
    """
    now = state.present(redis)
    state.refuse_canary(now, "put a release in the shadow")
    if release.digest == now.champion.digest:
        problem = "is the champion, and what is shown is its lists"
        raise RolloutError(f"shadow: {release.digest} {problem}; promote another bundle first")
    seconds, micros = redis.time()  # type: ignore[misc]
    trial = Trial(release, params.share, seconds * 1_000_000 + micros)
    redis.set(SHADOW, orjson.dumps(asdict(trial)), ex=int(params.hours * HOUR_S))
    state.record(redis, "start_shadow", act, release)
    return trial


def end(redis: Redis, act: Act) -> Trial | None:
    """The workers forget it; what was logged stays. None where there was none."""
    found: Any = redis.getdel(SHADOW)
    if not found:
        return None
    trial = Trial.of(found)
    state.record(redis, "end_shadow", act, trial.release)
    return trial
