"""Logged lists: what was shown together, in order, and which list a click belongs to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.clock import micros
from feature_repo.events import SCHEMA
from feature_repo.places import RAW
from pipelines.blend.pages import Page, logged_pages

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def logged(home: Path, *rows: tuple[float, str, str, dict[str, Any]]) -> list[Page]:
    """The pages of (minutes after noon, type, item, fields) in one visit unless a field says otherwise."""
    tables: dict[str, list[dict[str, Any]]] = {"events": [], "impressions": []}
    for number, (minutes, kind, item, fields) in enumerate(rows):
        at = NOON + timedelta(minutes=minutes)
        row = dict.fromkeys(SCHEMA.names) | {"event_id": f"e{number}", "event_ts": at, "created_ts": at}
        row |= {"type": kind, "item_id": item, "session_id": "s", "surface": "homepage_hero"}
        row |= {"consent": True, **fields}
        tables["impressions" if kind == "impression" else "events"].append(row)
    (home / RAW).mkdir(parents=True, exist_ok=True)
    for name, of_kind in tables.items():
        pq.write_table(pa.Table.from_pylist(of_kind, schema=SCHEMA), home / RAW / f"{name}.parquet")
    return logged_pages(NOON, NOON + timedelta(days=1), 100, np.random.default_rng(0))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def test_a_click_belongs_to_the_newest_list_before_it_that_held_the_item(home: Path) -> None:
    pages = logged(
        home,
        (0, "impression", "a", {"position": 1}),
        (0, "impression", "b", {"position": 2}),
        (5, "impression", "a", {"position": 3}),
        (6, "click", "a", {}),
        (7, "click", "never listed", {}),
        (4, "click", "a", {"session_id": "another"}),
    )
    assert [page.items for page in pages] == [("a", "b"), ("a",)]
    assert [page.clicked.tolist() for page in pages] == [[False, False], [True]]
    assert [page.query.now for page in pages] == [micros(NOON), micros(NOON + timedelta(minutes=5))]
    assert pages[1].position.tolist() == [3.0]


def test_a_click_before_its_list_or_long_after_it_belongs_to_none(home: Path) -> None:
    shown = (10, "impression", "a", {"position": 1})
    (page,) = logged(home, (9, "click", "a", {}), shown, (41, "click", "a", {}))
    assert not page.clicked.any()


def test_lists_of_one_instant_are_told_apart_by_surface_and_ordered_by_position_else_slot(home: Path) -> None:
    pages = logged(
        home,
        (0, "impression", "b", {"slot": 1}),
        (0, "impression", "a", {"slot": 0}),
        (0, "impression", "c", {"surface": "pdp_fbt", "position": 4}),
        (0, "impression", "d", {"surface": None}),
    )
    assert sorted((page.query.surface, page.items) for page in pages) == [
        ("", ("d",)),
        ("homepage_hero", ("a", "b")),
        ("pdp_fbt", ("c",)),
    ]
    assert [page.query.id for page in pages] == [0, 1, 2]


def test_a_shop_that_logs_no_lists_has_no_pages(home: Path) -> None:
    assert logged(home, (0, "click", "a", {})) == []
