"""Events of one instant have an order, and no query knows what stands behind it."""

from __future__ import annotations

import doctest
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.small_export import NOON, event, item, rows, run, write

from feature_repo.clock import micros
from pipelines.ingest import ties

US = timedelta(microseconds=1)


def of_raw(data: Path, name: str = "events") -> list[dict[str, Any]]:
    return rows(data / "raw" / f"{name}.parquet")


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(ties) == (0, 1)


def test_events_of_one_instant_keep_the_order_of_the_file_and_the_next_instant_stays(tmp_path: Path) -> None:
    shared = [event(0, event_id=name, item_id=name) for name in ("z", "b", "m")]
    export = write(tmp_path / "x", events=[*shared, event(1)], items=[item(n) for n in ("z", "b", "m", "i1")])
    report = run(export, tmp_path / "data")
    assert [(row["event_id"], row["event_ts"]) for row in of_raw(tmp_path / "data")] == [
        ("z", NOON),
        ("b", NOON + US),
        ("m", NOON + 2 * US),
        ("e1", NOON + timedelta(seconds=1)),
    ]
    assert (report.ties.contacts, report.ties.tied, report.ties.moved, report.ties.by_us) == (4, 3, 2, 2)
    assert report.ties.unit == "seconds"
    assert "75.0% of 4 contacts share their instant" in report.as_text()


def test_impressions_of_an_instant_come_after_its_events_and_stay_one_page(tmp_path: Path) -> None:
    shown = [event(0, event_id=f"p{n}", type="impression", item_id="i1", position=n) for n in (1, 2)]
    export = write(tmp_path / "x", events=[event(0)], impressions=shown, items=[item("i1")])
    run(export, tmp_path / "data")
    assert of_raw(tmp_path / "data")[0]["event_ts"] == NOON
    assert {row["event_ts"] for row in of_raw(tmp_path / "data", "impressions")} == {NOON + US}


def test_days_of_another_zone_are_days_in_summer_and_in_winter(tmp_path: Path) -> None:
    midnights = [NOON + timedelta(days=n, hours=11 - (n > 2)) for n in range(6)]  # 23:00Z, then 22:00Z
    made = [event(0, event_id=f"e{n}", event_ts=at, created_ts=at) for n, at in enumerate(midnights)]
    report = run(write(tmp_path / "x", events=made, items=[item("i1")]), tmp_path / "data")
    assert report.ties.unit == "days"


def test_nothing_moves_where_every_event_has_its_instant(tmp_path: Path) -> None:
    export = write(tmp_path / "x", events=[event(n) for n in range(5)], items=[item("i1")])
    report = run(export, tmp_path / "data")
    assert [row["event_ts"] for row in of_raw(tmp_path / "data")] == [event(n)["event_ts"] for n in range(5)]
    assert report.ties.in_words() == []


def test_what_was_learned_at_once_is_not_learned_before_it_happened(tmp_path: Path) -> None:
    late = event(0, event_id="late", created_ts=NOON + timedelta(hours=1))
    skewed = event(0, event_id="skewed", created_ts=NOON - timedelta(hours=1))
    export = write(
        tmp_path / "x", events=[event(0), event(0, event_id="b"), late, skewed], items=[item("i1")]
    )
    run(export, tmp_path / "data")
    learned = {row["event_id"]: row["created_ts"] - NOON for row in of_raw(tmp_path / "data")}
    assert learned == {"e0": 0 * US, "b": US, "late": timedelta(hours=1), "skewed": -timedelta(hours=1)}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=25))
def test_instants_grow_strictly_and_no_more_than_they_must(
    tmp_path_factory: Any, found: list[tuple[int, bool]]
) -> None:
    """Instants of a clock of microseconds, so that moved events push those behind them."""
    folder = tmp_path_factory.mktemp("ties")
    made = [
        event(0, event_id=f"e{i:02d}", event_ts=NOON + at * US, created_ts=NOON + at * US)
        | ({"type": "impression"} if shown else {})
        for i, (at, shown) in enumerate(found)
    ]
    run(write(folder / "x", events=made, items=[item("i1")]), folder / "data")
    raw = of_raw(folder / "data") + of_raw(folder / "data", "impressions")
    own = {row["event_id"]: micros(row["event_ts"]) - micros(NOON) for row in raw}
    keys = [(at, shown, -1 if shown else i) for i, (at, shown) in enumerate(found)]
    groups = sorted(set(keys))
    expected, last = {}, -1
    for group in groups:
        last = expected[group] = max(group[0], last + 1)
    assert own == {f"e{i:02d}": expected[key] for i, key in enumerate(keys)}
    assert np.all(np.diff([expected[group] for group in groups]) > 0)
