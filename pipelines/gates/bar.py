"""The gate: which evaluation allows a release, and by how much one that does not falls short. Pure logic.

The bar is the champion where both were measured on the same queries, else the best baseline of the same run:
numbers of two spans of time are not comparable, because another week asks other questions.

A baseline is what could serve instead, so the bar is not to be worse than the best of them, and no more: what
orders the lists was chosen on validation, may be a single source, and a shop's first day needs a release. By
how much the whole is better is for the evaluation to tell, not for the gate to ask.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from feature_repo.errors import EndcapError
from pipelines.protocol.metrics import OURS

LOST = "`endcap evaluate --show`, `endcap compare` tell where it is lost"
LEAKS = "`endcap leakage` tells which rows and of what they were made"
NARROW = "`diversify.tail_share`, `blend.floors`: more of the long tail"
METRICS = ("ndcg_at_12", "coverage_at_12")
FEW = "nothing: too few queries"  # what a release of a shop with little data is judged against


class GateError(EndcapError):
    """A release that must not be promoted, or an evaluation that cannot be judged."""


@dataclass(frozen=True)
class GateParams:
    """Section `gate` of params.yaml. Tolerances are relative but for coverage, which is a share itself."""

    min_queries: int  # an evaluation on fewer proves nothing
    min_ratio: float  # NDCG@12 over the best baseline's
    tolerance: float  # NDCG@12 may be lower than a champion's by this share: noise of one evaluation
    min_coverage: float  # share of the catalogue in at least one list
    coverage_tolerance: float  # coverage may be lower than the champion's by this much
    slice_margin: float  # a slice may be worse by this share of what it is compared with: margins.py
    slice_power: float  # half a slice's interval over its margin, up to which the slice can tell
    min_slice_queries: int  # surfaces with fewer questions are not judged against their baseline
    max_arp: float  # popularity of what is listed, over that of bestsellers' lists; told where there is more
    arp_tolerance: float  # the same may be higher than a champion's by this share
    max_gini: float  # inequality of exposure over the catalogue; told where there is more
    gini_tolerance: float  # the same may be higher than a champion's by this much
    max_slowdown: float  # time of an answer over the champion's, measured side by side
    fast_ms: float  # an answer of less harms nobody, whatever the champion's takes
    speed_questions: int  # that are timed
    max_growth: float  # size of the bundle over the champion's


@dataclass(frozen=True)
class Evaluation:
    """What the gate needs of data/reports/evaluate.json."""

    identity: tuple[Any, ...]  # equal where two reports answered the same queries
    queries: int
    models: Mapping[str, Mapping[str, float]]  # OURS and the baselines, each with METRICS
    serves: str = ""  # what orders our lists, where the report tells: ranker, blend or a source
    spread: Mapping[str, float] = field(default_factory=dict)  # arp, over bestsellers' lists; gini, of ours

    @property
    def reach(self) -> float:
        """Share of the candidates that as many lists drawn blindly would show: 1 where lists abound."""
        _, k, queries, candidates, *_ = self.identity
        share = 1 - math.exp(-k * queries / max(candidates, 1))
        return 1.0 if share > 0.99 else share

    @property
    def ours(self) -> Mapping[str, float]:
        return self.models[OURS]

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> Self:
        """Raises GateError for a missing or non-finite number, or a report without a baseline."""
        try:
            span = report["span"]
            identity = tuple(report[key] for key in ("protocol", "k", "queries", "candidates"))
            models = {
                name: {metric: finite(f"models.{name}.{metric}", model[metric]) for metric in METRICS}
                for name, model in report["models"].items()
            }
            for name, model in models.items():  # the interval's upper end; a report may have none
                high = report["models"][name].get("ndcg_high", model["ndcg_at_12"])
                model["ndcg_high"] = finite(f"models.{name}.ndcg_high", high)
            identity = (*identity, span["from"], span["to"])
            serves, spread = report.get("serves", ""), _spread(report["models"])
            evaluation = cls(identity, int(report["queries"]), models, serves, spread)
        except (KeyError, TypeError) as missing:
            problem = f"evaluation: {missing} does not fit; run `dvc repro evaluate` again"
            raise GateError(problem) from missing
        if OURS not in models or len(models) < 2:
            needed = f"{OURS} and at least one baseline"
            raise GateError(f"models: {sorted(models)} is not enough; needed: {needed}")
        return evaluation


@dataclass(frozen=True)
class Check:
    """One condition: value must be at least `needed`, which `because` says where it comes from."""

    name: str
    value: float
    needed: float
    because: str
    most: bool = False  # value must be at most `needed`
    judged: bool = True  # False: told, and refuses nothing
    step: str = ""  # what to do where it fails
    interval: tuple[float, float] | None = None  # of a difference, whose lower end is the value

    @property
    def within(self) -> bool:
        return self.value <= self.needed if self.most else self.value >= self.needed

    @property
    def passed(self) -> bool:
        return self.within or not self.judged

    @property
    def missing(self) -> float:
        """By how much the value is too low, or too high; 0 where it is not judged."""
        return 0.0 if self.passed else abs(self.needed - self.value)

    @property
    def state(self) -> str:
        """passed, FAILED, or told: outside of what is needed, and not judged."""
        return "FAILED" if not self.passed else "passed" if self.within else "told"

    def told(self) -> str:
        """In one line, for a person."""
        needed, missing = ("allowed at most", "too high") if self.most else ("needed", "missing")
        step = f", next: {self.step}" if self.step else ""
        return (
            f"{self.name} is {self.value:.4f}, {needed} {self.needed:.4f} ({self.because}), "
            f"{missing} by {self.missing:.4f}{step}"
        )


@dataclass(frozen=True)
class Verdict:
    """All checks of one evaluation; `against` is "champion" or the name of the baseline."""

    checks: tuple[Check, ...]
    against: str

    @classmethod
    def from_json(cls, gate: Mapping[str, Any]) -> Self:
        """From what gate.json and a bundle's manifest hold; one of before may lack what a check has today."""
        known = {field.name for field in fields(Check)}
        told = [{name: value for name, value in one.items() if name in known} for one in gate["checks"]]
        return cls(tuple(Check(**one) for one in told), gate["against"])

    def to_json(self) -> list[dict[str, Any]]:
        """The checks, as `from_json` takes them."""
        return [asdict(one) | {"passed": one.passed, "missing": one.missing} for one in self.checks]

    def plus(self, checks: Iterable[Check]) -> Self:
        """With these checks too; one of the same name takes the place of the one before."""
        named = {check.name: check for check in (*self.checks, *checks)}
        return replace(self, checks=tuple(named.values()))

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def shortfall(self) -> str:
        """The failed checks in one line, for a person.

        >>> Verdict((Check("coverage_at_12", 0.7, 0.8, "the floor"),), "ease").shortfall()
        'coverage_at_12 is 0.7000, needed 0.8000 (the floor), missing by 0.1000'
        """
        return "; ".join(check.told() for check in self.checks if not check.passed)


def judge(candidate: Evaluation, params: GateParams, champion: Evaluation | None = None) -> Verdict:
    """Every check of the gate. A champion measured on other queries gives no bar; the best baseline does.

    Against a baseline ours may be lower by chance: the upper end of its interval counts. A shop so small that
    neither its first release nor the champion was measured on `min_queries` queries is judged by what it has:
    by the champion of the same queries, else by coverage alone, which must be what so few lists allow.
    """
    ours, reach = candidate.ours, candidate.reach
    share = "" if reach == 1 else f" x {reach:.2f}, the share that {candidate.queries} lists could reach"
    floor = Check(
        "coverage_at_12",
        ours["coverage_at_12"],
        params.min_coverage * reach,
        f"the floor{share}",
        step=NARROW,
    )
    enough = Check("queries", candidate.queries, params.min_queries, "the floor", step="a longer test span")
    small = not enough.passed and (champion is None or champion.queries < params.min_queries)
    checks = [floor] if small else [enough, floor]
    if champion is None or champion.identity != candidate.identity:
        if small:
            return Verdict((floor,), FEW)  # on trial: nothing is known that it could be worse than
        others = {name: model["ndcg_at_12"] for name, model in candidate.models.items() if name != OURS}
        name = max(others, key=others.__getitem__)
        because = f"upper end of its interval: {name} x {params.min_ratio:g}"
        because += f"; {candidate.serves} serves" if candidate.serves else ""
        better = Check("ndcg_at_12", ours["ndcg_high"], others[name] * params.min_ratio, because, step=LOST)
        return Verdict((enough, better, floor), name)
    needed = champion.ours["ndcg_at_12"] * (1 - params.tolerance)
    checks.insert(
        -1, Check("ndcg_at_12", ours["ndcg_at_12"], needed, f"champion - {params.tolerance:.1%}", step=LOST)
    )
    needed = champion.ours["coverage_at_12"] - params.coverage_tolerance
    because = f"champion - {params.coverage_tolerance:g}"
    checks.append(Check("coverage_at_12 kept", ours["coverage_at_12"], needed, because, step=NARROW))
    return Verdict(tuple(checks), "champion")


def honest(leakage: Mapping[str, Any]) -> tuple[Check, ...]:
    """What data/reports/leakage.json must show: lists are only as good as what they did not know before."""
    rows, queries = leakage["rows"], leakage["queries"]
    clean = 1 - leakage["rows_that_know_the_future"] / rows if rows else 1.0
    blind = 1 - leakage["queries_that_know_their_answer"] / queries if queries else 1.0
    culprits = ", ".join(leakage["culprits"]) or "endcap leakage"
    needed, because = 1 - leakage["max_known_labels"], "leakage.max_known_labels"
    return (
        Check("rows blind to the future", clean, 1.0, culprits, step=LEAKS),
        Check("queries blind to their answer", blind, needed, because, step=LEAKS),
    )


def _spread(models: Mapping[str, Any]) -> dict[str, float]:
    """Empty for a report of before these were told, or on whose queries nothing was listed."""
    ours, popular = models.get(OURS, {}), models.get("popularity", {})
    if "gini" not in ours or not popular.get("arp"):
        return {}
    found = {"arp": ours["arp"] / popular["arp"], "gini": ours["gini"]}
    return {name: finite(f"models.{OURS}.{name}", value) for name, value in found.items()}


def finite(name: str, value: Any) -> float:
    """Raises GateError for a number of the report that cannot be judged."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        problem = f"{value!r} is not a number that can be judged"
        raise GateError(f"{name}: {problem}; run `dvc repro evaluate` again")
    return float(value)
