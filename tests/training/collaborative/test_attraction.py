"""An item's attraction: clicks against those that others would have got in the same places."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.events import SCHEMA
from training.collaborative.attraction import AttractionParams, fit_attraction

CUT = datetime(2026, 3, 2, tzinfo=UTC)
PARAMS = AttractionParams(half_life_days=14.0, prior=10.0)
Row = tuple[str, str, str, int, float]  # type, item, surface, position, days before the cut


def fitted(folder: Path, *rows: tuple[Row, int], ids: tuple[str, ...] = ("a", "b", "c")) -> np.ndarray:
    """Of so many of each row."""
    tables: dict[str, list[dict[str, Any]]] = {"events": [], "impressions": []}
    for (kind, item, surface, position, days), many in rows:
        at = CUT - timedelta(days=days)
        row = dict.fromkeys(SCHEMA.names) | {
            "event_id": "e",
            "event_ts": at,
            "created_ts": at,
            "consent": True,
        }
        row |= {"type": kind, "item_id": item, "session_id": "s", "surface": surface or None}
        tables["impressions" if kind == "impression" else "events"] += [row | {"position": position}] * many
    paths = []
    for name, of_kind in tables.items():
        paths.append(folder / f"{name}.parquet")
        pq.write_table(pa.Table.from_pylist(of_kind, schema=SCHEMA), paths[-1])
    return fit_attraction(list(ids), *paths, CUT, PARAMS)


def test_where_an_item_stands_does_not_count_against_it(tmp_path: Path) -> None:
    """Half as liked as b, yet clicked more often: a stands where all click, b on the homepage."""
    found = fitted(
        tmp_path,
        (("impression", "a", "search", 1, 1), 1000),
        (("click", "a", "search", 1, 1), 100),
        (("impression", "c", "search", 1, 1), 1000),
        (("click", "c", "search", 1, 1), 300),
        (("impression", "b", "homepage_hero", 1, 1), 1000),
        (("click", "b", "homepage_hero", 1, 1), 30),
        (("impression", "c", "homepage_hero", 1, 1), 1000),
        (("click", "c", "homepage_hero", 1, 1), 30),
    )
    assert found[0] < -0.5 < found[1]
    assert found[1] == pytest.approx(0.0, abs=0.05)


def test_a_position_that_is_seldom_looked_at_costs_little(tmp_path: Path) -> None:
    found = fitted(
        tmp_path,
        *((("impression", item, "", position, 1), 1000) for item, position in (("a", 1), ("b", 16))),
        *((("click", item, "", position, 1), 50) for item, position in (("a", 1), ("b", 16))),
    )
    assert found[1] > found[0] + 0.5


def test_few_impressions_and_what_nobody_was_shown_stand_at_the_mean(tmp_path: Path) -> None:
    rows = [(("impression", item, "", 1, 1), many) for item, many in (("a", 1000), ("b", 4))]
    found = fitted(tmp_path, *rows, (("click", "a", "", 1, 1), 100), (("click", "b", "", 1, 1), 1))
    assert abs(found[1]) < 0.1 and found[2] == 0.0


def test_what_came_after_the_cut_is_not_known_and_old_clicks_fade(tmp_path: Path) -> None:
    shown = [(("impression", item, "", 1, 1), 1000) for item in ("a", "b", "c")]
    clicks = [
        (("click", "a", "", 1, -1), 500),
        (("click", "b", "", 1, 1), 100),
        (("click", "c", "", 1, 29), 100),
    ]
    found = fitted(tmp_path, *shown, *clicks)
    assert found[0] < found[2] < found[1]


def test_clicks_that_do_not_say_where_are_set_against_all_lists(tmp_path: Path) -> None:
    shown = [(("impression", item, "search", 1, 1), 1000) for item in ("a", "b")]
    found = fitted(tmp_path, *shown, (("click", "a", "", 1, 1), 100), (("click", "b", "", 1, 1), 20))
    assert found[0] > 0 > found[1]


def test_a_shop_that_logs_no_lists_has_no_attraction(tmp_path: Path) -> None:
    assert fitted(tmp_path, (("click", "a", "", 1, 1), 100)).tolist() == [0.0, 0.0, 0.0]
