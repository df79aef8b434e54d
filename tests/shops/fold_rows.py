"""Rows of folds after every instant: by the stream's own functions, and as the backfill stored them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq
import pytest
from shops.small import as_event

from feature_repo.clock import micros
from feature_repo.folds.fold import Fold
from feature_repo.places import feature_file
from pipelines.stream.apply import FOLDS_BY_NAME, Entity, Held, apply, unstored, wanted

Rows = dict[tuple[str, str, int], dict[str, Any]]  # (view, key, instant) -> row


def streamed(folds: Sequence[Fold], events: list[dict[str, Any]]) -> Rows:
    states: dict[Entity, Held] = {}
    found: Rows = {}
    for raw in events:
        one = [as_event(raw)]
        while missing := wanted(folds, states, one):
            states |= {entity: unstored(entity) for entity in missing}
        for (name, key), held in apply(folds, states, one).items():
            found[name, key, raw["event_ts"]] = FOLDS_BY_NAME[name].row(held.state)
    return found


def backfilled(folds: Sequence[Fold]) -> Rows:
    found: Rows = {}
    for fold in folds:
        for row in pq.read_table(feature_file(fold.name)).to_pylist():
            at = micros(row.pop("event_timestamp"))
            row.pop("created_timestamp")
            found[fold.name, row.pop(fold.key), at] = row
    return found


def assert_equal(found: Rows, expected: Rows) -> None:
    """Decayed counts to 9 digits."""
    assert found.keys() == expected.keys()
    for entity, row in expected.items():
        for name, value in row.items():
            close = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert found[entity][name] == close, (entity, name)
