"""`endcap features`: data/raw -> data/features, the offline rows of every Feast view."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from feature_repo.features.catalogue import ITEM_CATALOGUE, catalogue_rows
from feature_repo.folds.fold import Fold
from feature_repo.offline.backfill import Limits, rows
from feature_repo.offline.history import schema, write
from feature_repo.offline.item_log import with_changes
from feature_repo.params import load, on_spark
from feature_repo.places import ITEM_LOG, ITEMS, RAW, SERVED_LOG, at, feature_file
from feature_repo.terminal import progress


@dataclass(frozen=True)
class FeaturesParams(Limits):
    """`features:`, the backfill."""

    row_group: int


def main() -> None:
    """Run the folds over all recorded events and write one parquet file per feature view."""
    params = load("features", FeaturesParams)
    for log in (SERVED_LOG, ITEM_LOG):  # stages depend on them from the start
        at(log).mkdir(parents=True, exist_ok=True)
    _write(ITEM_CATALOGUE, [with_changes(catalogue_rows(at(ITEMS)), at(ITEM_LOG))], params)
    if on_spark():
        from feature_repo.offline.spark import write_rows  # another machinery, which few need

        write_rows(at(RAW), params, params.row_group)
        return
    for fold, parts in rows(at(RAW), params):
        _write(fold, parts, params)


def _write(view: Fold, parts: Iterable[pa.Table], params: FeaturesParams) -> None:
    with progress(desc=view.name, unit=" rows", unit_scale=True) as bar:
        path, shape = feature_file(view.name), schema(view.key, view.columns)
        if path.is_dir():
            shutil.rmtree(path)  # what Spark left
        write(path, shape, _counted(parts, bar), params.row_group)


def _counted(parts: Iterable[pa.Table], bar: Any) -> Iterator[pa.Table]:
    for part in parts:
        yield part
        bar.update(len(part))
