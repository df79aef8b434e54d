"""Are the ranker's inputs still those that the release met where nothing was wrong? Distance and chance.

Numbers: Wasserstein distance in standard deviations of the reference. Categories and missing values: the
share of answers that would have to be another (total variation distance). Rows of one answer share their
visitor, and answers of a visit its course, so chance is reckoned by visit: a Bayesian bootstrap (Rubin 1981)
of both samples around what they are. A column has moved where its distance is past the limit even when chance
is taken off; where chance alone is past the limit, there are too few answers to say.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from redis import Redis

from feature_repo.assemble.matrix import Doubles
from feature_repo.assemble.vectorize import CLASSES, COLUMNS
from feature_repo.clock import HOUR_US
from feature_repo.errors import DataError
from feature_repo.events import DEVICES
from feature_repo.features.stored import ITEM_ACTIVITY
from monitoring.drift.strata import Sample, alike
from serving.live.exposures import SERVED, decode

BINS = 64  # of numbers: quantiles of both samples together
FEW_VISITS = 20  # with a value of a column: of fewer nothing is said
EMPTY = 1e-9  # a share below is none
TOLD = ("request_id", "session_id", "ts", "surface", "bundle")
CATEGORIES = {  # codes, whose order means nothing, and their names
    "device": ("unknown", *DEVICES),
}
ACTIVITY = {reading.column for reading in ITEM_ACTIVITY.readings}  # rises and falls with hour and weekday
CLASS_OF = {column: name for name, columns in CLASSES.items() for column in columns}


@dataclass(frozen=True)
class DriftParams:
    """Section `drift` of params.yaml."""

    number_distance: float  # Wasserstein distance, in reference standard deviations, that counts as drift
    activity_distance: float  # the same of ACTIVITY
    category_distance: float  # share of answers of another category that counts as drift
    missing_shift: float  # change of the share of missing values that counts as drift
    newest_answers: int  # of the stream
    least_alike: int  # answers that a place of the visit needs in both samples to be compared
    resamples: int
    alpha: float  # chance that any column of an undisturbed shop is said to have moved
    seed: int


@dataclass(frozen=True)
class Gap:
    """How far apart two samples are, and how far chance alone may put them."""

    distance: float
    limit: float
    chance: float = np.inf

    @property
    def moved(self) -> bool:
        return self.distance > self.limit + self.chance

    @property
    def unsure(self) -> bool:
        """Chance alone may pass the limit, so that nothing can be said."""
        return not self.moved and self.chance > self.limit


@dataclass(frozen=True)
class ColumnDrift:
    """One feature. `then`, `now`: means of what is there; of a category the share of `code`, changed most."""

    name: str
    values: Gap | None  # None where one side has no value at all
    missing: Gap
    missing_then: float
    missing_now: float
    code: int | None
    then: float | None
    now: float | None

    @property
    def finding(self) -> str:
        """In plain words; the larger surprise first."""
        if self.missing.moved:
            return f"missing {'more' if self.missing_now > self.missing_then else 'less'} often"
        if self.values is None:
            return "steady"
        if self.values.moved:
            return "moved"
        return "too few answers" if self.values.unsure or self.missing.unsure else "steady"

    @property
    def drifted(self) -> bool:
        return self.finding not in ("steady", "too few answers")


@dataclass(frozen=True)
class Drift:
    """What one comparison found. `alone`: share of live answers at places without their like, left out."""

    columns: tuple[ColumnDrift, ...]
    answers_reference: int
    answers_live: int
    visits_live: int
    hours: float
    alone: float

    @property
    def share(self) -> float:
        """Share of the judged features that drifted."""
        return sum(column.drifted for column in self.columns) / len(self.columns)


def read_served(redis: Redis, newest: int) -> tuple[pd.DataFrame, Counter[str]]:
    """(the newest sampled answers, oldest first: TOLD and COLUMNS, a row per candidate; schema -> how many
    of them are left out, their columns meaning something else).

    Errors as serving.live.exposures.decode.
    """
    others, entries = Counter[str](), redis.xrevrange(SERVED, count=newest)
    answers = list(decode(reversed(entries), others))  # type: ignore[arg-type]
    blocks = [features for _, features in answers]
    metas = [meta for meta, features in answers for _ in features]
    matrix = np.concatenate([np.empty((0, len(COLUMNS)), np.float32), *blocks])
    told = pd.DataFrame(metas, columns=list(TOLD)).astype({"ts": "int64"})
    return pd.concat([told, pd.DataFrame(matrix, columns=list(COLUMNS))], axis=1), others


def compare(reference: pd.DataFrame, live: pd.DataFrame, params: DriftParams) -> tuple[Drift, Sample, Sample]:
    """Judge every feature of `live`, as `read_served` gives it, against `reference`, its like; the samples
    that were compared.

    Raises DataError where too few live answers have their like.
    """
    try:
        then, now, alone = alike(reference, live, params.least_alike)
    except ValueError as error:
        raise DataError(SERVED, str(error), next_step="send the service more requests") from None
    hours = float(live["ts"].max() - live["ts"].min()) / HOUR_US
    drift = Drift(
        columns=tuple(_judged(then, now, params)),
        answers_reference=len(then.weight),
        answers_live=len(now.weight),
        visits_live=len(np.unique(now.visit)),
        hours=hours,
        alone=alone,
    )
    return drift, then, now


def _judged(then: Sample, now: Sample, params: DriftParams) -> Iterator[ColumnDrift]:
    """Chance is that of the most extreme of all gaps (max-T, Westfall and Young): many columns are asked."""
    rng = np.random.default_rng(params.seed)
    drawn = [sample.resampled(params.resamples, rng) for sample in (then, now)]
    columns = [_Column(name, then, now) for name in COLUMNS]
    measured = [column.measured(drawn, params) for column in columns]
    chances = [by_chance for gaps in measured for _, by_chance in gaps if np.isfinite(by_chance[0])]
    ratios = [by_chance / max(by_chance.mean(), 1e-12) for by_chance in chances]
    extreme = float(np.quantile(np.max(ratios, axis=0), 1 - params.alpha))
    for column, gaps in zip(columns, measured, strict=True):
        missing, *values = (replace(gap, chance=extreme * float(by.mean())) for gap, by in gaps)
        yield ColumnDrift(column.name, values[0] if values else None, missing, *column.told)


class _Column:
    """One feature of both samples: the share of each answer's candidates per bin; the last bin is missing."""

    def __init__(self, name: str, then: Sample, now: Sample) -> None:
        self.name, self.samples = name, (then, now)
        raw = [sample.rows[name].to_numpy(float) for sample in self.samples]
        pooled = np.concatenate(raw)
        pooled = np.sort(pooled[~np.isnan(pooled)])
        self.category = name in CATEGORIES
        numbers = len(pooled) and not self.category
        edges = np.unique(np.quantile(pooled, np.arange(1, BINS) / BINS) if numbers else pooled)
        self.shares, size = [], len(edges) + 2
        for sample, values in zip(self.samples, raw, strict=True):
            at = np.where(np.isnan(values), size - 1, np.searchsorted(edges, values, side="right"))
            counts = np.bincount(sample.answer * size + at, minlength=len(sample.weight) * size)
            shares = counts.reshape(-1, size).astype(float)
            self.shares.append(shares / shares.sum(axis=1, keepdims=True))
        places = np.searchsorted(edges, pooled, side="right")
        total = np.bincount(places, pooled, minlength=size - 1)
        self.level = total / np.maximum(np.bincount(places, minlength=size - 1), 1)  # mean of each bin
        self.means = [
            sample.weight @ shares for sample, shares in zip(self.samples, self.shares, strict=True)
        ]
        self.empty = any(mean[:-1].sum() < EMPTY for mean in self.means)  # one side has no value

    def measured(self, drawn: list[Doubles], params: DriftParams) -> list[tuple[Gap, Doubles]]:
        """Of the share of missing values and, unless a side has none, of the values: the gap observed, and
        what it was in each resample of samples without any, (resamples,)."""
        then, now = self.means
        redrawn = [weights @ shares for weights, shares in zip(drawn, self.shares, strict=True)]
        gap = now - then
        by_chance = np.abs(redrawn[1] - redrawn[0] - gap)[:, -1]
        missing = Gap(abs(float(gap[-1])), params.missing_shift), by_chance
        if self.empty:
            return [missing]
        gap = _present(now) - _present(then)
        by_chance = self._size(_present(redrawn[1]) - _present(redrawn[0]) - gap)
        numbers = params.activity_distance if self.name in ACTIVITY else params.number_distance
        limit = params.category_distance if self.category else numbers
        visits = [
            len(np.unique(sample.visit[shares[:, -1] < 1]))  # those that have a value
            for sample, shares in zip(self.samples, self.shares, strict=True)
        ]
        if min(visits) < FEW_VISITS:  # a bootstrap of a handful knows nothing of the others
            by_chance = np.full_like(by_chance, np.inf)
        return [missing, (Gap(float(self._size(gap)), limit), by_chance)]

    def _size(self, gap: Doubles) -> Any:
        """Distance of two samples whose shares per bin differ by `gap` (..., bins)."""
        if self.category:
            return np.abs(gap).sum(axis=-1) / 2
        share = _present(self.means[0])
        spread = np.sqrt(
            share @ (self.level - share @ self.level) ** 2
        )  # standard deviation of the reference
        between = np.abs(gap.cumsum(axis=-1)[..., :-1]) @ np.diff(self.level)
        return between / max(float(spread), 1e-3)

    @property
    def told(self) -> tuple[float, float, int | None, float | None, float | None]:
        """The last five fields of ColumnDrift."""
        then, now = self.means
        missing = float(then[-1]), float(now[-1])
        if self.empty:
            return *missing, None, None, None
        then, now = _present(then), _present(now)
        if self.category:
            most = int(np.argmax(np.abs(now - then)))
            return *missing, int(self.level[most]), float(then[most]), float(now[most])
        return *missing, None, float(then @ self.level), float(now @ self.level)


def _present(shares: Doubles) -> Doubles:
    """Shares (..., bins + 1) of the values that are there."""
    held = shares[..., :-1]
    return np.asarray(held / held.sum(axis=-1, keepdims=True))
