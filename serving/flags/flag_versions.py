"""The versions of a shop's experiments in Redis, who changed them and why. Workers poll `read`.

    endcap:flags   hash   version, document: what holds
    endcap:audit   one entry per change, in the same transaction (serving/release/state.py)

A change is compare-and-set on the version. What would move a shopper from one variant to another while an
experiment runs is refused.
"""

import secrets
from dataclasses import replace
from typing import Any, NamedTuple

from redis import Redis

from feature_repo.errors import EndcapError, shorten
from serving.flags.flag_document import EMPTY, Flag, Flags, FlagsError, parse, render
from serving.release import state
from serving.release.commit import commit
from serving.release.state import Act
from serving.rules.faults import Fault

FLAGS = "endcap:flags"
FIXED = ("layer", "slice", "audience", "metric", "effect", "variants")  # of a flag that runs
SALT_BYTES = 8


class FlagsConflict(EndcapError):
    """Somebody else changed the experiments first; nothing was written."""


class Published(NamedTuple):
    """What holds: version 0 and no flag before the first."""

    version: int = 0
    document: bytes = render(EMPTY)

    def flags(self) -> Flags:
        """Raises FlagsError for what another program wrote."""
        return parse(self.document).model_copy(update={"version": self.version})


def read(redis: Redis) -> Published:
    """What holds now. Raises redis' errors."""
    found: Any = redis.hmget(FLAGS, ["version", "document"])
    version, document = found
    if version is None or document is None:
        return Published()
    return Published(int(version), document if isinstance(document, bytes) else document.encode())


def publish(redis: Redis, draft: Flags, act: Act, seen: Published) -> Flags:
    """Let `draft` hold, with the salts and beginnings of what it keeps.

    Raises FlagsConflict where another version holds than it was made from, or than was `seen`; FlagsError
    where it changes what runs.
    """
    if draft.version is not None and draft.version != seen.version:
        raise FlagsConflict(
            f"version: the file was made from version {draft.version}, version {seen.version} holds. "
            "Next: `endcap experiment show` prints it; bring your change into it."
        )
    before, version = seen.flags(), seen.version + 1
    old = {one.key: one for one in before.flags}
    salts = {one.name: one.salt for one in before.layers}
    layers = [
        one.model_copy(update={"salt": salts.get(one.name) or one.salt or _salt()}) for one in draft.layers
    ]
    flags = [_settled(one, old.get(one.key), version, act.now_us) for one in draft.flags]
    if faults := [fault for one in draft.flags for fault in _disturbed(one, old.get(one.key))]:
        raise FlagsError(faults)
    settled = draft.model_copy(update={"version": version, "layers": tuple(layers), "flags": tuple(flags)})
    text = render(settled)
    parse(text)  # a change of one flag has seen no check of all
    began = {flag.key: flag.status for flag in flags if (was := old.get(flag.key)) is None or was != flag}
    _commit(redis, seen, text, "publish_flags", replace(act, numbers={**act.numbers, "flags": began}))
    return settled


def start(redis: Redis, key: str, ramp: float | None, act: Act, seen: Published) -> Flags:
    """Let the flag run, or, where it does, for more people: up to `ramp` percent of its slice."""
    told = {"status": "running"} | ({} if ramp is None else {"ramp": ramp})
    return publish(redis, _with(seen, key, told), replace(act, numbers={"start": key, "ramp": ramp}), seen)


def stop(redis: Redis, key: str, act: Act, seen: Published) -> Flags:
    """Nobody is in it any more. Started again, it is drawn anew, and counts from there."""
    return publish(redis, _with(seen, key, {"status": "off"}), replace(act, numbers={"stop": key}), seen)


def _with(seen: Published, key: str, told: dict[str, Any]) -> Flags:
    flags = seen.flags()
    changed = flags.flag(key).model_copy(update=told)
    return flags.model_copy(update={"flags": tuple(changed if o.key == key else o for o in flags.flags)})


def _settled(flag: Flag, was: Flag | None, version: int, now_us: int) -> Flag:
    """A flag that was stopped and begins again has other people: the old ones remember."""
    if not flag.running:
        kept = (was.salt, was.since, was.started_us) if was else (flag.salt, 0, 0)
    elif was and was.running:
        kept = was.salt, was.since, was.started_us
    else:
        fresh = flag.salt if flag.salt and not (was and was.since) else _salt()
        kept = fresh, version, now_us
    return flag.model_copy(update=dict(zip(("salt", "since", "started_us"), kept, strict=True)))


def _disturbed(flag: Flag, was: Flag | None) -> list[Fault]:
    """What of a running flag may not change, for then shoppers would change places in mid-experiment."""
    if was is None or not was.running or not flag.running:
        return []
    told = "what it is while it runs; `endcap experiment stop` before"
    found = [name for name in FIXED if getattr(flag, name) != getattr(was, name)]
    faults = [Fault(flag.key, name, shorten(str(getattr(flag, name))), told, kind="flag") for name in found]
    if flag.ramp < was.ramp:
        allowed = f"{was.ramp:g} to 100: who takes part stays"
        faults.append(Fault(flag.key, "ramp", f"{flag.ramp:g}", allowed, kind="flag"))
    return faults


def _salt() -> str:
    return secrets.token_hex(SALT_BYTES)


def _commit(redis: Redis, seen: Published, text: bytes, what: str, act: Act) -> None:
    told = {**act.numbers, "flags_version": seen.version + 1}
    with commit(redis, FLAGS, lambda pipe: read(pipe) == seen, FlagsConflict, what) as pipe:
        pipe.multi()
        pipe.hset(FLAGS, mapping={"version": seen.version + 1, "document": text})
        state.record(pipe, what, replace(act, numbers=told))
