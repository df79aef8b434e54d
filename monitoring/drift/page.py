"""Evidently's drift page: the distributions behind the distances of distances.py, in one file."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.events import DEVICES, SURFACES
from monitoring.drift.distances import CATEGORIES, DriftParams

with warnings.catch_warnings():  # its dependencies announce their own deprecations at import
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

NAMES = {
    "user_is_known": ("anonymous", "known"),
    "hour_of_day": tuple(f"{hour:02d}h" for hour in range(24)),
    "device": ("unknown", *DEVICES),
    "surface": ("unknown", *SURFACES),
}
"""What the codes of each category mean: a reader of the page wants names."""


def write_page(
    training: pd.DataFrame,
    live: pd.DataFrame,
    params: DriftParams,
    path: Path,
    leave_out: Collection[str] = (),
) -> dict[str, float]:
    """Write the page, which opens without a network, and give back Evidently's distance per feature.

    Both frames have COLUMNS. `leave_out` was not judged; a feature without any value on one side is left out
    as well: it has no distance.
    """
    there = training.notna().any() & live[list(COLUMNS)].notna().any()
    shown = [name for name in COLUMNS if there[name] and name not in leave_out]
    definition = DataDefinition(
        numerical_columns=[name for name in shown if name not in CATEGORIES],
        categorical_columns=[name for name in shown if name in CATEGORIES],
    )
    preset = DataDriftPreset(
        num_method="wasserstein",
        num_threshold=params.number_distance,
        cat_method="jensenshannon",
        cat_threshold=params.category_distance,
    )
    current, reference = (
        Dataset.from_pandas(_readable(rows[shown]), definition) for rows in (live, training)
    )
    with warnings.catch_warnings():  # numpy, about the empty bins of a histogram
        warnings.simplefilter("ignore")
        snapshot = Report([preset]).run(current, reference)
    snapshot.save_html(str(path))
    found = [metric for metric in snapshot.dict()["metrics"] if "column" in metric["config"]]
    return {metric["config"]["column"]: float(metric["value"]) for metric in found}


def _readable(rows: pd.DataFrame) -> pd.DataFrame:
    """Codes as names; one that the vocabulary does not have, and a missing one, stay what they are."""
    named = {
        name: rows[name].map(dict(enumerate(NAMES[name]))).fillna(rows[name])
        for name in rows
        if name in NAMES
    }
    return rows.astype("float64").assign(**named)
