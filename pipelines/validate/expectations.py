"""What must hold of data/raw and of the ranker's training set, as Great Expectations suites.

Ingest judges rows one by one; a suite judges the table: is it whole, plausible and fit for the models
behind it? No other module knows Great Expectations.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
from great_expectations import expectations as gxe
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.clock import EPOCH
from feature_repo.events import COUNT_FIELDS, ITEM_SCHEMA, MAX_PRICE, PRODUCT_TYPES, SCHEMA, TYPES
from feature_repo.params import Shop
from pipelines.ingest.profile import Profile
from pipelines.validate import data_docs
from pipelines.validate.findings import TableResult

LABELS = (0, 1, 2, 3)
IN_CATALOGUE = "item_in_catalogue"  # made by the job: True, or the id of an item that is not
OF_TYPES = dict(zip(PRODUCT_TYPES, ("views", "carts", "purchases"), strict=True))
NEEDS = {  # column of a table: what a shop without it does not have (pipelines.ingest.profile)
    "price": "prices",
    "category_path": "categories",
    "price_log": "prices",
    "price_ratio": "prices",
    "user_days_away": "returning shoppers",
}
ONCE = EPOCH  # of every run: GX would put the clock into its pages, and their bytes would never be the same
_FINITE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ValidateParams:
    """Section `validate` of params.yaml."""

    seed: int
    sample_rows: int
    min_known_items: float
    max_null_share: dict[str, float]
    max_null_features: dict[str, float]


@dataclass(frozen=True)
class Subject:
    """A table, or a sample of one, and the suite that it must pass."""

    frame: pd.DataFrame
    total: int  # rows of the whole table
    suite: list[Expectation]


def check(subjects: Mapping[str, Subject], docs: Path) -> dict[str, TableResult]:
    """Run every suite and write the Data Docs to the folder `docs`, which is emptied first."""
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for name in context.get_site_names():
        context.delete_data_docs_site(name)
    shutil.rmtree(docs, ignore_errors=True)  # pages of earlier runs would pile up
    context.add_data_docs_site(
        docs.name,
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.resolve()),
            },
        },
    )
    source = context.data_sources.add_pandas("data")
    results = {}
    for name, subject in subjects.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=subject.suite))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        definition = context.validation_definitions.add(definition)
        checkpoint = context.checkpoints.add(gx.Checkpoint(name=name, validation_definitions=[definition]))
        outcome = checkpoint.run({"dataframe": subject.frame}, run_id=RunIdentifier(run_time=ONCE))
        (result,) = outcome.run_results.values()
        results[name] = TableResult.of(result.to_json_dict()["results"], len(subject.frame), subject.total)
    context.build_data_docs()
    data_docs.finish(docs, results)
    return results


def events_suite(shop: Shop, constants: ValidateParams, found: Profile) -> list[Expectation]:
    """data/raw/events.parquet: canonical, of known items, with the shop's funnel, and long enough for its
    cuts.
    """
    funnel = [kind for kind, name in OF_TYPES.items() if name not in found.lacks]
    return [
        *_canonical(SCHEMA),
        gxe.ExpectColumnValuesToBeUnique(column="event_id"),
        gxe.ExpectColumnValuesToBeInSet(column="type", value_set=list(TYPES)),
        gxe.ExpectColumnDistinctValuesToContainSet(column="type", value_set=funnel),
        *_ranges(),
        _items_are_known(constants),
        gxe.ExpectColumnMinToBeBetween(column="event_ts", max_value=shop.rank_from),
        gxe.ExpectColumnMaxToBeBetween(column="event_ts", min_value=shop.test_from),
    ]


def impressions_suite(constants: ValidateParams, found: Profile) -> list[Expectation]:
    """data/raw/impressions.parquet: canonical impressions of known items, if there are any."""
    return [
        *_canonical(SCHEMA, at_least=int("impressions" not in found.lacks)),
        gxe.ExpectColumnValuesToBeUnique(column="event_id"),
        gxe.ExpectColumnValuesToBeInSet(column="type", value_set=["impression"]),
        *_ranges(),
        _items_are_known(constants),
    ]


def items_suite(constants: ValidateParams, found: Profile) -> list[Expectation]:
    """data/raw/items.parquet: one row per item, one currency; prices and categories, where there are any,
    mostly known.
    """
    return [
        *_canonical(ITEM_SCHEMA),
        gxe.ExpectColumnValuesToBeUnique(column="item_id"),
        gxe.ExpectColumnValuesToBeBetween(column="price", min_value=0, max_value=MAX_PRICE),
        gxe.ExpectColumnUniqueValueCountToBeBetween(column="currency", max_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="margin", min_value=0, max_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="stock", min_value=0),
        *_known(constants.max_null_share, found),
    ]


def training_suite(constants: ValidateParams, found: Profile) -> list[Expectation]:
    """data/features/ranker_training.parquet: (query, item) once, labels of the scale, 28 finite features."""
    columns = ("query_id", "split", "item_id", "label")
    shares = {name: constants.max_null_features.get(name, 0.0) for name in (*columns, *COLUMNS)}
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        *(gxe.ExpectColumnToExist(column=name) for name in (*columns, *COLUMNS)),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["query_id", "item_id"]),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=["train", "valid"]),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(LABELS)),
        *_known(shares, found),
        # Nulls are skipped here; an infinity is neither null nor between.
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=-_FINITE, max_value=_FINITE)
            for name in COLUMNS
        ),
    ]


def queries_suite() -> list[Expectation]:
    """One row per query of the training set: a list without a positive, or of one item, teaches nothing."""
    return [
        gxe.ExpectColumnValuesToBeBetween(column="best_label", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="candidates", min_value=2),
    ]


def _canonical(schema: pa.Schema, at_least: int = 1) -> list[Expectation]:
    required = [field.name for field in schema if not field.nullable]
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=at_least),
        *(gxe.ExpectColumnToExist(column=name) for name in schema.names),
        *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in required),
    ]


def _ranges() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToBeBetween(column="price", min_value=0, max_value=MAX_PRICE),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
            for name, (low, high) in COUNT_FIELDS.items()
        ),
    ]


def _items_are_known(constants: ValidateParams) -> Expectation:
    return gxe.ExpectColumnValuesToBeInSet(
        column=IN_CATALOGUE, value_set=[True], mostly=constants.min_known_items
    )


def _known(max_null_shares: dict[str, float], found: Profile) -> list[Expectation]:
    """What a shop does not have at all may be null throughout."""
    return [
        gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=1 - share)
        for name, share in max_null_shares.items()
        if share < 1 and NEEDS.get(name) not in found.lacks
    ]
