"""The release that serves, the one on trial (`endcap:rollout` in Redis) and who changed it (`endcap:audit`).

Only this module reads or writes these keys. A change is compare-and-set on `version`, and its audit entry is
written in the same transaction: there is no change without one. Workers poll `read`.

    endcap:rollout        hash    the RolloutState below
    endcap:audit          stream  one entry per change, the last AUDIT_KEPT
    endcap:health:<arm>   hash    requests, errors, empty (counts since the step began), p99_ms (latest)
"""

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
from redis import Redis

from feature_repo.errors import EndcapError
from feature_repo.params import root
from serving.release.commit import commit
from serving.release.router import ARMS

ROLLOUT, AUDIT, HEALTH = "endcap:rollout", "endcap:audit", "endcap:health:"
EXPOSURES = "endcap:exposures"  # serving/live/exposures.py writes it; where it ends, a step begins
AUDIT_KEPT = 50_000  # approximately: 50 changes a day for 1,000 days


class RolloutError(EndcapError):
    """A change of the rollout that its present state does not allow."""


class RolloutConflict(RolloutError):
    """Somebody else changed the rollout first; nothing was written."""


@dataclass(frozen=True)
class Release:
    """A bundle: its digest, and its folder relative to the project's root."""

    digest: str
    path: str

    def manifest(self) -> dict[str, Any] | None:
        """What stands in its folder about it; None where that is gone or cannot be read."""
        try:
            return dict(orjson.loads((root() / self.path / "manifest.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class RolloutState:
    """Who serves what. `percent` of the shoppers outside the holdout get the challenger.

    `step` counts from 0 within the experiment; `started_us` is when the step began (microseconds UTC, the
    clock of Redis). `since` is the newest exposure of that moment, as a stream id, and `begun` the same of
    the experiment's first step: clocks may jump. `salt` decides who sees the challenger and is secret:
    whoever knows it picks the shoppers whose clicks count. A guard must look every `guard_timeout_s`.
    `reverted`: the champion came back by a rollback, and `previous` is what was taken away.
    """

    version: int
    champion: Release
    challenger: Release | None = None
    previous: Release | None = None
    percent: int = 0
    step: int = 0
    started_us: int = 0
    salt: str = field(default="", repr=False)
    experiment: str = ""
    since: str = "0-0"
    reverted: bool = False
    begun: str = "0-0"
    guard_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise RolloutError(f"percent: {self.percent} is not allowed; allowed: 0 to 100")
        if self.percent and self.challenger is None:
            raise RolloutError(f"percent: {self.percent} without a challenger; start a canary first")

    def told(self) -> dict[str, Any]:
        """All of it but the salt, for people and machines."""
        return {name: value for name, value in asdict(self).items() if name != "salt"}


@dataclass(frozen=True)
class Act:
    """Who changes the rollout, why, when by the clock of that machine (microseconds UTC), on what numbers."""

    who: str
    why: str
    now_us: int
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Health:
    """What the workers counted for one arm since the step began, and their latest p99 in milliseconds."""

    requests: int = 0
    errors: int = 0
    empty: int = 0
    p99_ms: float = 0.0


def read(redis: Redis) -> RolloutState | None:
    """The present state; None before the first release is installed."""
    values: Any = redis.hgetall(ROLLOUT)
    if not values:
        return None
    found = {name: orjson.loads(text) for name, text in _texts(values).items()}
    for name in ("champion", "challenger", "previous"):
        found[name] = Release(**found[name]) if found[name] else None
    return RolloutState(**found)


def present(redis: Redis) -> RolloutState:
    """The state after the first promotion. Raises RolloutError before it."""
    if (state := read(redis)) is None:
        raise RolloutError("champion: nothing was ever promoted; run `endcap promote` first")
    return state


def install(redis: Redis, release: Release, act: Act) -> RolloutState:
    """Make `release` the champion without a canary: the first release, or one that a person vouches for."""
    if (state := read(redis)) is None:
        return _commit(redis, None, RolloutState(1, release), "install", act)
    refuse_canary(state, "install a champion")
    changed = replace(state, champion=release, previous=state.champion, reverted=False)
    return _commit(redis, state, changed, "install", act)


def start_canary(
    redis: Redis,
    state: RolloutState,
    challenger: Release,
    percent: int,
    experiment: str,
    act: Act,
    guard_timeout_s: float = 60.0,
) -> RolloutState:
    """Show `challenger` to `percent` of the shoppers, drawn with a new secret salt."""
    refuse_canary(state, "start another")
    if not experiment:
        raise RolloutError("experiment: '' is not allowed; allowed: a name that no experiment had before")
    if challenger.digest == state.champion.digest:
        raise RolloutError(f"challenger: {challenger.digest} is the champion already; release another bundle")
    changed = replace(state, challenger=challenger, percent=percent, step=0, salt=secrets.token_hex(16))
    changed = replace(changed, experiment=experiment, begun="", guard_timeout_s=guard_timeout_s)
    return _commit(redis, state, changed, "start_canary", act)


def advance(redis: Redis, state: RolloutState, percent: int, act: Act) -> RolloutState:
    """The next step: the challenger to `percent` of the shoppers, more than now."""
    _require_canary(state)
    if percent <= state.percent:
        raise RolloutError(
            f"percent: {percent} is not allowed; allowed: more than {state.percent}, up to 100"
        )
    return _commit(redis, state, replace(state, percent=percent, step=state.step + 1), "advance", act)


def rollback(redis: Redis, state: RolloutState, act: Act) -> RolloutState:
    """End the canary: the champion serves everybody again."""
    _require_canary(state)
    return _commit(redis, state, _without_canary(state), "rollback", act)


def promote_champion(redis: Redis, state: RolloutState, act: Act) -> RolloutState:
    """The challenger, at 100 %, becomes the champion; the champion is kept as `previous`."""
    challenger = _require_canary(state)
    if state.percent != 100:
        raise RolloutError(f"percent: {state.percent} is not 100; advance the canary before promoting it")
    changed = replace(_without_canary(state), champion=challenger, previous=state.champion, reverted=False)
    return _commit(redis, state, changed, "promote_champion", act)


def revert(redis: Redis, state: RolloutState, release: Release, act: Act) -> RolloutState:
    """Let `release` serve everybody again, ending any canary; forward again if a rollback took it away."""
    forward = state.reverted and release == state.previous
    changed = replace(_without_canary(state), champion=release, previous=state.champion, reverted=not forward)
    return _commit(redis, state, changed, "revert_to_previous", act)


def _without_canary(state: RolloutState) -> RolloutState:
    return replace(state, challenger=None, percent=0, step=0)


def record(redis: Redis, what: str, act: Act, release: Release | None = None) -> None:
    """An audit entry for something that does not change the rollout (rules published, a person erased)."""
    redis.xadd(AUDIT, _entry(what, act, release), maxlen=AUDIT_KEPT, approximate=True)


def read_audit(redis: Redis, count: int = 100) -> list[dict[str, Any]]:
    """The latest audit entries, newest first: id, at_us, who, what, why, numbers, version (or None), said_us.

    `at_us` is Redis' clock, which never goes back along the stream; `said_us` is that of whoever acted.
    `release` is the digest that it is about ("" of none), `percent` the share that sees the challenger.
    """
    entries: Any = redis.xrevrange(AUDIT, count=count)
    return [_parsed_entry(stream_id, fields) for stream_id, fields in entries]


def publish_health(redis: Redis, arm: str, *, requests: int, errors: int, empty: int, p99_ms: float) -> None:
    """Add what a worker counted since its last call (every second) and set its p99 of the same time."""
    pipe = redis.pipeline(transaction=False)
    for name, count in (("requests", requests), ("errors", errors), ("empty", empty)):
        pipe.hincrby(HEALTH + arm, name, count)
    pipe.hset(HEALTH + arm, "p99_ms", str(p99_ms))
    pipe.execute()


def read_health(redis: Redis, arm: str) -> Health:
    """Counts of an arm since the step began; zeros before the first worker has reported."""
    found = _texts(redis.hgetall(HEALTH + arm))  # type: ignore[arg-type]
    counts = {name: int(found.get(name, 0)) for name in ("requests", "errors", "empty")}
    return Health(**counts, p99_ms=float(found.get("p99_ms", 0.0)))


def refuse_canary(state: RolloutState, wish: str) -> None:
    """Raises RolloutError while a challenger is on trial; `wish` is what it is in the way of."""
    if state.challenger is not None:
        raise RolloutError(
            f"challenger: {state.challenger.digest} is on trial at {state.percent} %; "
            f"`endcap rollout stop` before you {wish}"
        )


def _require_canary(state: RolloutState) -> Release:
    if state.challenger is None:
        raise RolloutError("challenger: none is on trial; start one with `endcap rollout start`")
    return state.challenger


def _commit(
    redis: Redis, expected: RolloutState | None, changed: RolloutState, what: str, act: Act
) -> RolloutState:
    """Write `changed` if the stored version is still the expected one; new step, new counts."""

    def same(pipe: Any) -> bool:
        stored = read(pipe)
        return (stored and stored.version) == (expected and expected.version)

    with commit(redis, ROLLOUT, same, RolloutConflict, what) as pipe:
        seconds, micros = redis.time()  # type: ignore[misc]
        newest: Any = pipe.xrevrange(EXPOSURES, count=1)
        since = _text(newest[0][0]) if newest else "0-0"
        changed = replace(
            changed,
            version=expected.version + 1 if expected else 1,
            started_us=seconds * 1_000_000 + micros,
            since=since,
            begun=changed.begun or since,
        )
        pipe.multi()
        pipe.hset(ROLLOUT, mapping={name: orjson.dumps(value) for name, value in asdict(changed).items()})
        ended = expected.challenger if expected and what == "rollback" else None
        entry = _entry(what, act, ended or changed.challenger or changed.champion, changed)
        pipe.xadd(AUDIT, entry, maxlen=AUDIT_KEPT, approximate=True)
        pipe.delete(*(HEALTH + arm for arm in ARMS))
    return changed


def _entry(what: str, act: Act, about: Release | None, state: RolloutState | None = None) -> dict[Any, Any]:
    entry = {"said_us": act.now_us, "who": act.who, "what": what, "why": act.why}
    entry |= {"version": state.version if state else "", "percent": state.percent if state else ""}
    return entry | {"numbers": orjson.dumps(dict(act.numbers)), "release": about.digest if about else ""}


def _parsed_entry(stream_id: Any, fields: Mapping[Any, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"release": "", "percent": "", **_texts(fields)}
    return entry | {
        "id": _text(stream_id),
        "at_us": int(_text(stream_id).partition("-")[0]) * 1000,
        "said_us": int(entry["said_us"]),
        "numbers": orjson.loads(entry["numbers"]),
        **{name: int(entry[name]) if entry[name] else None for name in ("version", "percent")},
    }


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    """Redis answers in bytes or in text, as its client was built."""
    return value.decode() if isinstance(value, bytes) else str(value)
