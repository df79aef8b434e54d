"""Drift for the eye: distances beside their limits in one picture, and Evidently's page of distributions."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from feature_repo.picture import Figure
from monitoring.drift.distances import CATEGORIES, ColumnDrift, Drift
from monitoring.drift.strata import Sample

with warnings.catch_warnings():  # its dependencies announce their own deprecations at import
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.presets import DataDriftPreset

ROWS = 20_000  # of a sample, drawn by weight: the page's histograms need no more


def write_page(drift: Drift, then: Sample, now: Sample, path: Path) -> None:
    """Evidently's page, which opens without a network. Distances and verdicts on it are those of `drift`.

    A feature without any value on one side is left out: it has no distribution to show.
    """
    shown = {column.name: column for column in drift.columns if column.values}
    definition = DataDefinition(
        numerical_columns=[name for name in shown if name not in CATEGORIES],
        categorical_columns=[name for name in shown if name in CATEGORIES],
    )
    preset = DataDriftPreset(
        per_column_method={name: _told(column) for name, column in shown.items()},
        per_column_threshold={name: column.values.limit for name, column in shown.items() if column.values},
    )
    reference, current = (
        Dataset.from_pandas(_readable(sample)[list(shown)], definition) for sample in (then, now)
    )
    with warnings.catch_warnings():  # numpy, about the empty bins of a histogram
        warnings.simplefilter("ignore")
        Report([preset]).run(current, reference).save_html(str(path))


def write_picture(drift: Drift, path: Path) -> None:
    """A line per feature: its distance in limits, and what chance takes off it."""
    columns = sorted((c for c in drift.columns if c.values), key=lambda c: c.values.distance / c.values.limit)  # type: ignore[union-attr]
    figure = Figure(figsize=(8, 0.25 * len(columns) + 1.2), layout="constrained")
    axes = figure.subplots()
    for at, column in enumerate(columns):
        gap = column.values
        assert gap
        colour = {"steady": "tab:green", "too few answers": "tab:gray"}.get(column.finding, "tab:red")
        low = max(gap.distance - gap.chance, 0.0) / gap.limit
        axes.plot([low, gap.distance / gap.limit], [at, at], color=colour)
        axes.plot(gap.distance / gap.limit, at, "o", color=colour)
    axes.set_yticks(range(len(columns)), [column.name for column in columns])
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel(
        "dot: distance in limits; left end: less what chance explains\nred: moved; gray: too few answers"
    )
    axes.set_title(
        f"{drift.answers_live:,} live answers against {drift.answers_reference:,} of the release's own"
    )
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _told(column: ColumnDrift) -> str:
    """Name under which Evidently finds our measurement as a test of its own."""
    gap, name = column.values, f"endcap_{column.name}"
    assert gap
    told = StatTest(name, "distance by endcap drift", list(ColumnType), gap.limit)
    register_stattest(told, lambda *_: (gap.distance, column.drifted))
    return name


def _readable(sample: Sample) -> pd.DataFrame:
    """Rows drawn by the weight of their answers, codes as names; what has no name stays what it is."""
    of_answer = np.bincount(sample.answer)
    weight = (sample.weight / of_answer)[sample.answer]
    rows = sample.rows.sample(min(ROWS, len(sample.rows)), replace=True, weights=weight, random_state=0)
    named = {
        name: rows[name].map(dict(enumerate(codes))).fillna(rows[name]) for name, codes in CATEGORIES.items()
    }
    return rows.assign(**named)
