"""Which release is tried out beside what serves, and how; only this module knows the keys.

    endcap:shadow       its lists are made beside the answers, shown to nobody (serving/beside/understudy.py)
    endcap:interleave   its lists are shown, mixed with the champion's (serving/beside/interleaver.py)

Each is JSON of the Trial below; it ends by itself, and with it what workers hold of the release.
"""

import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import orjson
from redis import Redis

from feature_repo.errors import ParamsError
from serving.release import state
from serving.release.state import Act, Release, RolloutError

SHADOW, INTERLEAVE = "endcap:shadow", "endcap:interleave"
AUDITED = {SHADOW: "shadow", INTERLEAVE: "interleave"}
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
class InterleaveParams:
    """Section `interleave` of params.yaml."""

    share: float  # of the shoppers outside the holdout, who get both releases in one list
    hours: float  # then it ends by itself
    within_ms: float  # a request older than this when the second list would be ready gets the first alone
    preference: float  # the smallest worth knowing, of all credited clicks: there the interval is tightest

    def __post_init__(self) -> None:
        for name in ("share", "preference"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise ParamsError(f"interleave.{name}: {value} is not allowed; allowed: above 0, up to 1")


@dataclass(frozen=True)
class Trial:
    """`began_us`: Redis' clock, microseconds UTC. `share`: of the answers, or of the shoppers.

    `champion`: the digest that served as it began. `salt` decides who and whose slots, and is secret.
    """

    release: Release
    share: float
    began_us: int
    champion: str = ""
    salt: str = field(default="", repr=False)

    @classmethod
    def of(cls, stored: bytes | str) -> Self:
        found: dict[str, Any] = orjson.loads(stored)
        return cls(**found | {"release": Release(**found["release"])})


def read(redis: Redis, key: str = SHADOW) -> Trial | None:
    """The release that is tried out so; None where none is."""
    found: Any = redis.get(key)
    return Trial.of(found) if found else None


def begin(
    redis: Redis, release: Release, params: ShadowParams | InterleaveParams, act: Act, key: str = SHADOW
) -> Trial:
    """Let every worker try `release` out. Raises RolloutError while a canary is on trial.

    Whatever was tried out so before is not any more; the same release again begins anew.
    """
    now, name = state.present(redis), AUDITED[key]
    state.refuse_canary(now, "put a release in the shadow" if key == SHADOW else "interleave")
    if release.digest == now.champion.digest:
        problem = "is the champion, and what is shown is its lists"
        raise RolloutError(f"{name}: {release.digest} {problem}; promote another bundle first")
    seconds, micros = redis.time()  # type: ignore[misc]
    began_us, salt = seconds * 1_000_000 + micros, secrets.token_hex(16)
    trial = Trial(release, params.share, began_us, now.champion.digest, salt)
    redis.set(key, orjson.dumps(asdict(trial)), ex=int(params.hours * HOUR_S))
    numbers = {**act.numbers, "share": params.share, "champion": trial.champion}
    state.record(redis, f"start_{name}", replace(act, numbers=numbers), release)
    return trial


def end(redis: Redis, act: Act, key: str = SHADOW) -> Trial | None:
    """The workers forget it; what was logged stays. None where there was none."""
    found: Any = redis.getdel(key)
    if not found:
        return None
    trial = Trial.of(found)
    state.record(redis, f"end_{AUDITED[key]}", act, trial.release)
    return trial
