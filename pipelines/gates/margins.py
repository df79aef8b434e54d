"""Slice by slice, not worse by more than a margin: anonymous, known, cold item, and every surface.

The questions of a slice are compared pair by pair with the champion's answers to the same, else with the best
baseline's of the same run. The interval is of the mean difference, whole visits resampled, with a fixed seed.

    its lower end is above -margin             not worse: passed
    its upper end is below -margin             worse, beyond what chance does: refused, whatever its size
    neither, and the slice could have told     not shown to be no worse: refused
    neither, and it could not                  too early to say: told, and refuses nothing

A slice can tell where half its interval is at most the share `slice_power` of the margin. With .5 an equal
release is refused by a slice in 2.5 % of the cases, and one that is worse by twice the margin never passes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.places import SCORES
from pipelines.gates.bar import FEW, LOST, Check, Evaluation, GateParams, Verdict, finite, judge
from pipelines.gates.evenness import spread
from pipelines.gates.scores import Part, Scores
from pipelines.protocol.metrics import OURS, bootstrap_interval, fingerprint

CHAMPION = "champion"
_LEAST = 30  # visits, below which no interval is believed


def verdict_of(
    report: Mapping[str, Any],
    scores: Scores | None,
    champion: tuple[Mapping[str, Any], Path] | None,
    params: GateParams,
) -> Verdict:
    """Every line of an evaluation: the bar, popularity and inequality, slices.

    `scores` of its questions, None where it has none; `champion`: its evaluation and its folder.
    """
    ours = Evaluation.from_report(report)
    theirs = Evaluation.from_report(champion[0]) if champion else None
    theirs_scores = Scores.read(champion[1] / SCORES.name, fingerprint(champion[0])) if champion else None
    verdict = judge(ours, params, theirs).plus(spread(ours, params, theirs))
    few = verdict.against == FEW  # on trial: nothing is known that a slice could be worse than
    if scores is None or few:
        return verdict
    lines = *overall(scores, theirs_scores, params), *slices(scores, theirs_scores, params)
    return verdict.plus(lines)


def overall(scores: Scores, champion: Scores | None, params: GateParams) -> Iterator[Check]:
    """NDCG@12 beside the champion's on the very same questions, by the upper end of the interval.

    As against a baseline, chance alone refuses no release; without those answers the bar is of the means.
    """
    ours, theirs = (part.parts.get(OURS) if part else None for part in (scores, champion))
    if ours and theirs and ours.questions == theirs.questions:
        before = float(theirs.ours.mean())
        high = _interval(ours.ours - theirs.ours, ours.visit)[1]
        because = f"upper end of the difference's interval: champion - {params.tolerance:.1%}"
        yield Check("ndcg_at_12", before + high, before * (1 - params.tolerance), because, step=LOST)


def slices(candidate: Scores, champion: Scores | None, params: GateParams) -> Iterator[Check]:
    """A line per slice of session continuation, and per surface where the champion answered the same.

    Without the champion's answers a surface has its own line, against its own baseline: `surfaces`.
    """
    for name, part in candidate.parts.items():
        before = champion.parts.get(name) if champion else None
        same = before is not None and before.questions == part.questions
        base, against = (before.ours, CHAMPION) if before and same else (part.baseline, part.against)
        if name != OURS and not same:
            continue
        inside = part.slices if name == OURS else {name: np.ones(len(part.visit), np.bool_)}
        for one, rows in inside.items():
            yield line(one, part, base, against, rows, params)


def surfaces(report: Mapping[str, Any], params: GateParams) -> tuple[Check, ...]:
    """Every surface against its own baseline on its own questions: not credibly worse, where many asked.

    Reports of before there were surfaces have none. Raises GateError for a number that cannot be judged.
    """
    checks = []
    for name, found in report.get("surfaces", {}).items():
        if found["queries"] < params.min_slice_queries:
            continue
        rate = finite(f"surfaces.{name}.hit_rate_at_12", found["hit_rate_at_12"])
        base = finite(f"surfaces.{name}.baseline_hit_rate_at_12", found["baseline_hit_rate_at_12"])
        high = base + finite(f"surfaces.{name}.over", found["over"][1])
        because = f"{rate:.4g}, upper end of its interval: {found['baseline']} under the same filters"
        checks.append(Check(f"{name} hit_rate_at_12", high, base, because, step=f"section `surfaces.{name}`"))
    return tuple(checks)


def line(
    name: str,
    part: Part,
    base: npt.NDArray[np.float64],
    against: str,
    rows: npt.NDArray[np.bool_],
    params: GateParams,
) -> Check:
    """The slice `rows` bool (q,) of `part` against `base` float64 (q,), which `against` names."""
    visits, usual = part.visit[rows], float(base[rows].mean())
    low, high = _interval((part.ours - base)[rows], visits)
    margin, enough = params.slice_margin * usual, len(np.unique(visits)) >= _LEAST
    told = low >= -margin or (enough and (high < -margin or high - low <= 2 * params.slice_power * margin))
    because = f"{against}'s {usual:.4g} less {params.slice_margin:.0%}, {len(visits):,} questions"
    metric, step = "hit rate@12", f"`endcap evaluate --show`, section `surfaces.{name}` of params.yaml"
    if name in part.slices:
        metric, step = "NDCG@12", f"`endcap compare` shows the lists of {name} that changed"
    because += "" if told else "; too early to say"
    title = f"{name} {metric} no worse"
    return Check(title, low, -margin, because, judged=told, step=step, interval=(low, high))


def _interval(differences: npt.NDArray[np.float64], visits: npt.NDArray[np.int32]) -> tuple[float, float]:
    return bootstrap_interval(differences, np.random.default_rng(0), clusters=visits)
