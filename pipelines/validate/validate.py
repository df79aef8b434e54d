"""The validate job: Great Expectations on data/raw or the training set; a failed suite stops the pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pyarrow import dataset

from feature_repo import params
from feature_repo.errors import DataError, ParamsError
from feature_repo.places import DATA, RAW, at
from pipelines.ingest.profile import WITHOUT, Profile, profile
from pipelines.validate.expectations import (
    IN_CATALOGUE,
    Subject,
    ValidateParams,
    check,
    events_suite,
    impressions_suite,
    items_suite,
    queries_suite,
    training_suite,
)
from pipelines.validate.findings import TableResult


class What(StrEnum):
    """What can be validated."""

    raw = "raw"
    training = "training"


def main(
    what: Annotated[
        What, typer.Argument(help="raw: events, impressions, items. training: the ranker's set.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> int:
    """Check data/raw, or the ranker's training set, against its expectations."""
    shop, constants = params.shop(), params.load("validate", ValidateParams)
    data = at(DATA)
    found = profile(data / "raw")
    require(shop, found)
    subjects = raw(data, shop, constants, found) if what is What.raw else training(data, constants, found)
    results = check(subjects, data / "reports" / "data_docs" / what.value)
    report = {
        "what": what.value,
        "success": all(result.success for result in results.values()),
        "absent": list(found.lacks),
        "tables": {name: result.as_dict() for name, result in results.items()},
    }
    text = json.dumps(report, indent=2)
    (data / "reports" / f"validate_{what.value}.json").write_text(text + "\n")
    print(text if as_json else summary(results, found, data / "reports" / "data_docs" / what.value))
    return 0 if report["success"] else 1


def require(shop: params.Shop, found: Profile) -> None:
    """Raise DataError where the data lacks what the shop's section says it has; ParamsError for a word that
    says nothing.
    """
    if unknown := [name for name in shop.expects if name not in WITHOUT]:
        allowed = ", ".join(WITHOUT)
        raise ParamsError(f"shops.{shop.name}.expects: {unknown[0]!r} is unknown; allowed: {allowed}")
    if missing := [name for name in shop.expects if name in found.lacks]:
        problem = f"has no {missing[0]}, which shops.{shop.name}.expects names"
        raise DataError(RAW, problem, next_step="look at the export, or take the word out of params.yaml")


def raw(data: Path, shop: params.Shop, constants: ValidateParams, found: Profile) -> dict[str, Subject]:
    """The three files of data/raw; impressions are sampled when they are many."""
    generator = np.random.default_rng(constants.seed)
    items, n_items = read(data / "raw" / "items.parquet")
    events, n_events = read(data / "raw" / "events.parquet")
    shown, n_shown = read(data / "raw" / "impressions.parquet", constants.sample_rows, generator)
    catalogue = items.get("item_id", pd.Series(dtype=object))
    return {
        "events": Subject(_with_catalogue(events, catalogue), n_events, events_suite(shop, constants, found)),
        "impressions": Subject(
            _with_catalogue(shown, catalogue), n_shown, impressions_suite(constants, found)
        ),
        "items": Subject(items, n_items, items_suite(constants, found)),
    }


def training(data: Path, constants: ValidateParams, found: Profile) -> dict[str, Subject]:
    """The ranker's training rows (a sample when they are many), and all of its queries; none where nothing
    can be learned.
    """
    path = data / "features" / "ranker_training.parquet"
    rows, total = read(path, constants.sample_rows, np.random.default_rng(constants.seed))
    if not total:
        return {}
    subjects = {"ranker_training": Subject(rows, total, training_suite(constants, found))}
    if {"query_id", "label"} <= set(rows.columns):
        labels = pq.read_table(path, columns=["query_id", "label"])
        groups = labels.group_by("query_id").aggregate([("label", "max"), ("label", "count")])
        queries = groups.rename_columns(["query_id", "best_label", "candidates"]).to_pandas()
        subjects["ranker_queries"] = Subject(queries, len(queries), queries_suite())
    return subjects


def read(
    path: Path, at_most: int | None = None, generator: np.random.Generator | None = None
) -> tuple[pd.DataFrame, int]:
    """A parquet file, or `at_most` of its rows drawn without replacement in file order, and its row count.

    Raises DataError when the file is missing or cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            total = file.metadata.num_rows
            if at_most is None or total <= at_most or generator is None:
                return file.read().to_pandas(), total
            chosen = np.sort(generator.choice(total, at_most, replace=False))  # (at_most,) row numbers
            return dataset.dataset(path).take(pa.array(chosen)).to_pandas(), total
    except (pa.ArrowException, OSError) as error:
        step = "run the stage that makes it: endcap ingest, or endcap ranker_data"
        raise DataError(path, f"cannot be read: {error}", next_step=step) from error


def summary(results: Mapping[str, TableResult], found: Profile, docs: Path) -> str:
    """Per table how many expectations hold, then each failure in words, what is absent, where to look."""
    lines = [] if results else ["no row: there is nothing to learn an order from"]
    for name, result in results.items():
        sample = "" if result.rows == result.total else f", on a sample of {result.rows:,}"
        held = f"{result.held}/{len(result.findings)} expectations hold"
        lines.append(f"{name:<16} {held}; {result.total:,} rows{sample}")
        lines += [f"  FAILED {line}" for line in result.failures(name)]
    if found.lacks:
        lines.append(f"not expected, as the shop has none: {', '.join(found.lacks)}")
    return "\n".join([*lines, f"pages: {docs / 'index.html'}"])


def _with_catalogue(events: pd.DataFrame, catalogue: pd.Series[Any]) -> pd.DataFrame:
    """Adds IN_CATALOGUE: True, the id of an item that the catalogue does not have, null without an item."""
    if "item_id" not in events:
        return events
    known = events["item_id"].isin(set(catalogue))
    return events.assign(**{IN_CATALOGUE: events["item_id"].astype(object).where(~known, True)})
