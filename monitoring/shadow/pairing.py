"""What was logged of a release in the shadow, in numbers, and whether a canary may follow."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import orjson
from redis import Redis

from monitoring.shadow.likeness import overlap, rbo
from serving.beside.trial import ShadowParams
from serving.beside.understudy import SHADOWED
from serving.release.state import Release, RolloutError

READ = 1000  # entries at a time
ALL = "all surfaces"
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Alike:
    """The pairs of one surface, or of all: means over pairs; milliseconds at QUANTILES.

    `same`: share of the lists that are equal. `expected`: mean chance of a click per slot, of what was shown
    and of the shadow's, each by its own release's calibration; None where either has none.
    """

    pairs: int
    overlap: float
    rbo: float
    same: float
    shown_ms: tuple[float, ...]
    shadow_ms: tuple[float, ...]
    expected: tuple[float, float] | None


@dataclass(frozen=True)
class Shadowed:
    """All that is known of `digest`; `since_us`, `until_us`: Redis' clock, of the first pair and the last."""

    digest: str
    pairs: int
    empty: int  # lists with slots empty that eligible items could have filled
    failed: int
    error: str = ""  # what it raised last
    since_us: int = 0
    until_us: int = 0
    alike: Mapping[str, Alike] = field(default_factory=dict)  # by surface, ALL first

    def json(self) -> dict[str, Any]:
        return asdict(self)


def logged(redis: Redis, digest: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(Redis' clock in us, pair) of the release, the newest first."""
    end = "+"
    while True:
        entries: Any = redis.xrevrange(SHADOWED, max=end, count=READ)
        if not entries:
            return
        for number, fields in entries:
            pair = orjson.loads(next(iter(fields.values())))
            if pair.get("shadow") == digest:
                yield int(_text(number).partition("-")[0]) * 1000, pair
        end = f"({_text(entries[-1][0])}"


def measure(redis: Redis, digest: str) -> Shadowed:
    """What the stream still holds of the release; no pair at all is an answer, too."""
    told = list(logged(redis, digest))
    failed = [pair["error"] for _, pair in told if "error" in pair]
    pairs = [pair for _, pair in told if "error" not in pair]
    if not told:
        return Shadowed(digest, 0, 0, 0)
    surfaces: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for pair in pairs:
        surfaces[pair["surface"]].append(pair)
    alike = {name: _alike(found) for name, found in sorted(surfaces.items())}
    return Shadowed(
        digest,
        len(pairs),
        sum(pair["short"] for pair in pairs),
        len(failed),
        failed[0] if failed else "",
        told[-1][0],
        told[0][0],
        ({ALL: _alike(pairs)} | alike) if pairs else {},
    )


def objection(found: Shadowed, params: ShadowParams) -> str:
    """Why no canary should follow what was seen; "" where nothing speaks against it."""
    if found.failed:
        return f"it failed on {found.failed} of {found.failed + found.pairs} answers ({found.error})"
    if found.empty:
        return f"{found.empty} of its {found.pairs} lists have slots empty that eligible items could fill"
    if found.pairs < params.min_pairs:
        return f"it was computed beside {found.pairs} answers, at least {params.min_pairs} are a report"
    return ""


def cleared(redis: Redis, release: Release, params: ShadowParams, forced: str = "") -> dict[str, Any]:
    """What the audit says of the shadow as a canary begins. `forced`: why it may begin whatever was seen.

    Raises RolloutError where the shadow is asked for, speaks against it and nobody forces it.
    """
    found = measure(redis, release.digest)
    against = objection(found, params) if params.required else ""
    if against and not forced:
        step = "`endcap shadow start` computes it beside live answers, `endcap shadow report` tells more"
        raise RolloutError(f'shadow: {release.digest}: {against}. Next: {step}; or --force --why "..."')
    told: dict[str, Any] = {"pairs": found.pairs, "empty": found.empty, "failed": found.failed}
    if found.alike:
        told |= {"overlap": round(found.alike[ALL].overlap, 4), "rbo": round(found.alike[ALL].rbo, 4)}
    return {"shadow": told} | ({"forced": against} if against else {})


def _alike(pairs: Sequence[Mapping[str, Any]]) -> Alike:
    lists = [(pair["shown"], pair["list"]) for pair in pairs]
    chances = [(pair["expected_shown"], pair["expected"]) for pair in pairs]
    known = np.array([pair for pair in chances if None not in pair], np.float64).reshape(-1, 2)
    return Alike(
        len(pairs),
        float(np.mean([overlap(*two) for two in lists])),
        float(np.mean([rbo(*two) for two in lists])),
        float(np.mean([shown == other for shown, other in lists])),
        _quantiles([pair["shown_ms"] for pair in pairs]),
        _quantiles([pair["took_ms"] for pair in pairs]),
        (float(known[:, 0].mean()), float(known[:, 1].mean())) if len(known) else None,
    )


def _quantiles(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(np.quantile(values, QUANTILES, method="inverted_cdf").round(3).tolist())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
