"""The feature schema: another meaning is another hash, and a release of another one is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from shops import tiny_bundle

from feature_repo.assemble import schema
from feature_repo.features.stored import FOLDS, ITEM_ACTIVITY
from feature_repo.folds.fold import Fold
from feature_repo.folds.parts import Counts, Tally
from serving.errors import BundleError
from serving.release import bundle


def hash_of(monkeypatch: pytest.MonkeyPatch, **names: Any) -> str:
    """The hash with `names` of feature_repo.assemble.schema replaced."""
    with monkeypatch.context() as patch:
        for name, value in names.items():
            patch.setattr(schema, name, value)
        return schema.schema_hash.__wrapped__()


def with_counter(**changes: Any) -> tuple[Fold, ...]:
    """FOLDS, one decayed count of items changed."""
    counts, *rest = ITEM_ACTIVITY.parts
    assert isinstance(counts, Counts)
    head, *others = counts.counters
    parts = (Counts(replace(head, **changes), *others, of_items=True), *rest)
    return (*FOLDS[:-1], replace(ITEM_ACTIVITY, parts=parts))


def test_the_same_declarations_give_the_same_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hash_of(monkeypatch) == hash_of(monkeypatch, FOLDS=with_counter()) == schema.schema_hash()
    assert len(schema.schema_hash()) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"half_life_us": 7},
        {"weights": {"product_viewed": 2.0}},
        {"weights": {"click": 1.0}},
        {"examined": True},
        {"doc": "views by people"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_another_meaning_of_a_decayed_count_is_another_schema(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    assert hash_of(monkeypatch, FOLDS=with_counter(**changes)) != schema.schema_hash()


def test_another_part_unit_or_formula_is_another_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    more = replace(FOLDS[0], parts=(*FOLDS[0].parts, Tally("clicks", "click", "clicks")))
    first, *rest = schema.READINGS["user"]
    minutes = {**schema.READINGS, "user": (first._replace(unit="minutes"), *rest)}
    seen = {
        schema.schema_hash(),
        hash_of(monkeypatch, FOLDS=(more, *FOLDS[1:])),
        hash_of(monkeypatch, READINGS=minutes),
        hash_of(monkeypatch, PRIOR_EXPOSURE=10.0),
        hash_of(monkeypatch, ITEM_CATALOGUE=replace(schema.ITEM_CATALOGUE, max_age_days=3)),
    }
    assert len(seen) == 5


def test_a_release_of_another_meaning_is_refused(tmp_path: Path) -> None:
    built = tiny_bundle.make(tmp_path)
    manifest = orjson.loads((built / "manifest.json").read_bytes())
    assert manifest["schema"] == schema.schema_hash()
    (built / "manifest.json").write_bytes(orjson.dumps(manifest | {"schema": "0123456789abcdef"}))
    with pytest.raises(BundleError, match="feature schema"):
        bundle.verify(built)
