"""Do shoppers still look like those that the ranker was trained on? Served rows against training rows.

Distances, not p-values: with thousands of rows every difference is significant; how large it is counts.
Numbers: Wasserstein distance in training standard deviations. Categories: Jensen-Shannon distance, 0 to 0.83.
The definitions are Evidently's, whose page (monitoring/drift/page.py) shows the same distances with pictures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
from redis import Redis
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from feature_repo.assemble.vectorize import CLASSES, COLUMNS
from feature_repo.clock import HOUR_US
from feature_repo.errors import DataError
from serving.live.exposures import SERVED, decode

DAY_HOURS = 24.0
CATEGORIES = ("user_is_known", "hour_of_day", "device")  # codes: their order means nothing
CLASS_OF = {column: name for name, columns in CLASSES.items() for column in columns}


@dataclass(frozen=True)
class DriftParams:
    """Section `drift` of params.yaml."""

    number_distance: float  # Wasserstein distance, in training standard deviations, that counts as drift
    category_distance: float  # Jensen-Shannon distance that counts as drift
    missing_shift: float  # change of the share of missing values that counts as drift
    reference_rows: int  # training rows compared with, drawn at random
    newest_answers: int  # of the stream
    min_answers: int  # with fewer, distances are mostly chance
    seed: int


@dataclass(frozen=True)
class ColumnDrift:
    """One feature: distance between live and training values, missing shares 0..1, means of what is there."""

    name: str
    distance: float | None  # None where one side has no value at all
    limit: float
    missing_training: float
    missing_live: float
    missing_limit: float
    mean_training: float | None
    mean_live: float | None

    @property
    def feature_class(self) -> str:
        return CLASS_OF[self.name]

    @property
    def finding(self) -> str:
        """In plain words; the larger surprise first."""
        shift = self.missing_live - self.missing_training
        if abs(shift) > self.missing_limit:
            return f"missing {'more' if shift > 0 else 'less'} often"
        if self.distance is not None and self.distance >= self.limit:
            return "moved"
        return "steady"

    @property
    def drifted(self) -> bool:
        return self.finding != "steady"


@dataclass(frozen=True)
class Drift:
    """What one comparison found; `known_*` is the share of answers to shoppers who were known."""

    columns: tuple[ColumnDrift, ...]
    not_judged: tuple[str, ...]
    rows_training: int
    rows_live: int
    answers: int
    hours: float
    enough: bool
    known_training: float
    known_live: float

    @property
    def share(self) -> float:
        """Share of the judged features that drifted."""
        return sum(column.drifted for column in self.columns) / len(self.columns)


def read_served(redis: Redis, newest: int) -> tuple[pd.DataFrame, Counter[str]]:
    """(the newest sampled answers, oldest first: request_id, ts (us UTC), arm and COLUMNS, a row per item;
    schema -> how many of them are left out, their columns meaning something else).

    Errors as serving.live.exposures.decode.
    """
    others, entries = Counter[str](), redis.xrevrange(SERVED, count=newest)
    answers = list(decode(reversed(entries), others))  # type: ignore[arg-type]
    blocks = [features for _, features in answers]
    metas = [meta for meta, features in answers for _ in features]
    matrix = np.concatenate([np.empty((0, len(COLUMNS)), np.float32), *blocks])
    told = pd.DataFrame(metas, columns=["request_id", "ts", "arm"]).astype({"ts": "int64"})
    return pd.concat([told, pd.DataFrame(matrix, columns=list(COLUMNS))], axis=1), others


def sample_training(training: pd.DataFrame, params: DriftParams) -> pd.DataFrame:
    """COLUMNS of at most `reference_rows` training rows, drawn at random and the same every time."""
    rows = training[list(COLUMNS)]
    if len(rows) <= params.reference_rows:
        return rows
    return rows.sample(params.reference_rows, random_state=params.seed)


def compare(training: pd.DataFrame, live: pd.DataFrame, params: DriftParams) -> Drift:
    """Judge every feature of `live`, as `read_served` gives it, against `training`, which has COLUMNS.

    hour_of_day is judged only where live rows span a day: an afternoon always differs from the whole clock.
    Raises DataError without live rows.
    """
    if not len(live):
        raise DataError(SERVED, "no live feature rows", next_step="send the service some requests")
    hours = float(live["ts"].max() - live["ts"].min()) / HOUR_US
    not_judged = () if hours >= DAY_HOURS else ("hour_of_day",)
    answers = live.drop_duplicates("request_id")
    return Drift(
        columns=tuple(
            _column(name, training[name], live[name], params) for name in COLUMNS if name not in not_judged
        ),
        not_judged=not_judged,
        rows_training=len(training),
        rows_live=len(live),
        answers=len(answers),
        hours=hours,
        enough=len(answers) >= params.min_answers,
        known_training=float(training["user_is_known"].mean()),
        known_live=float(answers["user_is_known"].mean()),
    )


def number_distance(training: pd.Series, live: pd.Series) -> float:
    """Wasserstein distance in standard deviations of `training` (at least 0.001, for a constant).

    >>> number_distance(pd.Series([0.0, 2.0]), pd.Series([0.5, 2.5]))
    0.5
    """
    return float(wasserstein_distance(training, live) / max(float(np.std(training)), 0.001))


def category_distance(training: pd.Series, live: pd.Series) -> float:
    """Jensen-Shannon distance (natural logarithm) of the shares of each code.

    >>> round(category_distance(pd.Series([1, 1]), pd.Series([2, 2])), 3)
    0.833
    """
    codes = np.union1d(training, live)
    shares = (rows.value_counts(normalize=True).reindex(codes, fill_value=0.0) for rows in (training, live))
    return float(jensenshannon(*shares))


def _column(name: str, training: pd.Series, live: pd.Series, params: DriftParams) -> ColumnDrift:
    category = name in CATEGORIES
    then, now = training.dropna().astype(float), live.dropna().astype(float)
    distance = category_distance if category else number_distance
    return ColumnDrift(
        name=name,
        distance=distance(then, now) if len(then) and len(now) else None,
        limit=params.category_distance if category else params.number_distance,
        missing_training=float(training.isna().mean()),
        missing_live=float(live.isna().mean()),
        missing_limit=params.missing_shift,
        mean_training=None if category or not len(then) else float(then.mean()),
        mean_live=None if category or not len(now) else float(now.mean()),
    )
