"""The versions of a shop's rules in Redis, who changed them and why. Workers poll `read`.

    endcap:rules            hash   version, document, reverts_to: what holds; shadow: what is tried out
    endcap:rules:versions   hash   version -> document and where a revert of it goes; the newest KEPT
    endcap:audit            one entry per change, in the same transaction (serving/release/state.py)

A change is compare-and-set: on the version that it was made from, or, where the document tells none, on what
stood there when it began.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import orjson
from redis import Redis

from feature_repo.errors import EndcapError
from serving.release import state
from serving.release.commit import commit
from serving.release.state import Act
from serving.rules.document import NOTHING, Document, parse, render

RULES, VERSIONS = "endcap:rules", "endcap:rules:versions"
KEPT = 100  # versions that a shop can go back to
NONE = render(NOTHING)


class RulesConflict(EndcapError):
    """Somebody else changed the rules first; nothing was written."""


class NoSuchVersion(EndcapError):
    """A version of the rules that there is none of, or none any more."""


@dataclass(frozen=True)
class Published:
    """What holds: `version` 0 and no rules before the first. `shadow`: what is only tried out, None for none.

    `reverts_to`: the version that a revert brings back.
    """

    version: int = 0
    document: bytes = NONE
    reverts_to: int = 0
    shadow: bytes | None = None

    @property
    def shadow_name(self) -> str:
        """12 hex digits of what is tried out, "" for nothing."""
        return name_of(self.shadow) if self.shadow else ""


def name_of(document: bytes) -> str:
    """A draft has no version yet: it is called by its content."""
    return sha256(document).hexdigest()[:12]


def read(redis: Redis) -> Published:
    """What holds now. Raises redis' errors."""
    found: Any = redis.hgetall(RULES)
    told = {_text(name): value for name, value in found.items()}
    if not told:
        return Published()
    shadow = _bytes(told.get("shadow"))
    return Published(
        int(told["version"]), _bytes(told["document"]) or NONE, int(told["reverts_to"]), shadow or None
    )


def publish(redis: Redis, document: Document, act: Act, seen: Published) -> Published:
    """Let `document` hold; the draft of the same content is no shadow any more.

    Raises RulesConflict where another version holds than it was made from, or than was `seen`.
    """
    if document.version is not None and document.version != seen.version:
        raise RulesConflict(
            f"version: the file was made from version {document.version}, version {seen.version} holds. "
            "Next: `endcap rules show` prints it; bring your change into it."
        )
    text = render(document)
    shadow = None if seen.shadow == text else seen.shadow
    changed = Published(seen.version + 1, text, seen.version, shadow)
    return _commit(redis, seen, changed, "publish_rules", act)


def revert(redis: Redis, act: Act, seen: Published, to: int | None = None) -> Published:
    """Bring back what held before the last change, or version `to`, as a new version.

    Repeated, it goes one further back each time. Raises NoSuchVersion, RulesConflict.
    """
    if seen.version == 0:
        raise NoSuchVersion("version: no rules were ever published; `endcap rules publish FILE` does it")
    target = seen.reverts_to if to is None else to
    document, before = version(redis, target)
    changed = Published(seen.version + 1, document, before, seen.shadow)
    return _commit(redis, seen, changed, "revert_rules", replace(act, numbers={**act.numbers, "to": target}))


def set_shadow(redis: Redis, document: Document | None, act: Act, seen: Published) -> Published:
    """Try `document` out beside what holds, or nothing any more. Raises RulesConflict."""
    changed = replace(seen, shadow=render(document) if document else None)
    return _commit(redis, seen, changed, "shadow_rules" if document else "end_shadow_rules", act)


def version(redis: Redis, number: int) -> tuple[bytes, int]:
    """(document, where a revert of it goes). Raises NoSuchVersion, naming those that there are."""
    if number == 0:
        return NONE, 0
    raw: Any = redis.hget(VERSIONS, str(number))
    if raw is None:
        keys: Any = redis.hkeys(VERSIONS)
        allowed = ", ".join(map(str, sorted({0} | {int(key) for key in keys})))
        raise NoSuchVersion(f"version: {number} is not kept; allowed: {allowed}")
    kept: Mapping[str, Any] = orjson.loads(raw)
    return kept["document"].encode(), kept["reverts_to"]


def documents(found: Published) -> tuple[Document, Document | None]:
    """What holds and what is tried out, parsed. Raises RulesError for what another program wrote."""
    return parse(found.document), parse(found.shadow) if found.shadow else None


def _commit(redis: Redis, seen: Published, changed: Published, what: str, act: Act) -> Published:
    with commit(redis, RULES, lambda pipe: read(pipe) == seen, RulesConflict, what) as pipe:
        held: Any = pipe.hkeys(VERSIONS)
        room = KEPT - (changed.version != seen.version)  # a shadow is no version
        old = sorted((int(key) for key in held), reverse=True)[room:]
        told = {"rules_version": changed.version, "shadow": changed.shadow_name}
        pipe.multi()
        values = {"version": changed.version, "reverts_to": changed.reverts_to}
        texts = {"document": changed.document, "shadow": changed.shadow or b""}
        pipe.hset(RULES, mapping={**values, **texts})
        if changed.version != seen.version:
            kept = {"document": changed.document.decode(), "reverts_to": changed.reverts_to}
            pipe.hset(VERSIONS, str(changed.version), orjson.dumps(kept).decode())
        if old:
            pipe.hdel(VERSIONS, *map(str, old))
        state.record(pipe, what, replace(act, numbers={**act.numbers, **told}))
    return changed


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode()
