"""Adapter `sessions`: lists of ids become visits whose made-up times tell their order and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shops.small_export import LATEST, LOOSE, files, rows

from feature_repo.errors import DataError
from feature_repo.params import Shop
from pipelines.ingest.adapters.adapters import Sessions, adapter_of
from pipelines.ingest.ingest import ingest
from pipelines.ingest.report import IngestReport
from pipelines.protocol.queries import make_queries, product_events

START = datetime(2020, 1, 1, tzinfo=UTC)
LISTS = [[11, 12, 11], [13], [12, 13, 14]]


def imported(folder: Path, items: Sequence[Any], **columns: Sequence[Any]) -> IngestReport:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"items": items, **columns}), folder / "sessions.parquet")
    return ingest("test", Sessions(folder), folder / "data", LOOSE, LATEST)


def test_a_list_becomes_a_visit_of_one_view_a_second(tmp_path: Path) -> None:
    report = imported(tmp_path, LISTS)
    kept = rows(tmp_path / "data" / "raw" / "events.parquet")
    assert [(row["session_id"], row["item_id"]) for row in kept] == [
        ("v000000000", "11"),
        ("v000000000", "12"),
        ("v000000000", "11"),
        ("v000000001", "13"),
        ("v000000002", "12"),
        ("v000000002", "13"),
        ("v000000002", "14"),
    ]
    assert [row["event_ts"] for row in kept] == [START + timedelta(seconds=n) for n in range(1, 8)]
    assert {row["type"] for row in kept} == {"product_viewed"}
    assert all(row["created_ts"] == row["event_ts"] and row["user_id"] is None for row in kept)
    items = rows(tmp_path / "data" / "raw" / "items.parquet")
    assert [row["item_id"] for row in items] == ["11", "12", "13", "14"]
    assert report.parts["events"].rows_in == 7
    assert "times are made up, one view a second in the order of the lists" in report.as_text()


def test_the_files_own_visits_and_shoppers_are_kept(tmp_path: Path) -> None:
    imported(tmp_path, [["a", "b"], ["c"]], session_id=[70, 71], user_id=["u1", None])
    kept = rows(tmp_path / "data" / "raw" / "events.parquet")
    found = [(row["session_id"], row["user_id"], row["item_id"]) for row in kept]
    assert found == [("70", "u1", "a"), ("70", "u1", "b"), ("71", None, "c")]


def test_made_up_times_tie_nothing_so_that_no_contact_knows_another_of_its_instant(tmp_path: Path) -> None:
    report = imported(tmp_path, LISTS)
    assert (report.ties.tied, report.ties.moved) == (0, 0)


def test_a_query_knows_what_stands_before_it_in_the_file_and_nothing_after(tmp_path: Path) -> None:
    imported(tmp_path, LISTS)
    events = product_events(tmp_path / "data" / "raw")
    queries = make_queries(events, START, None, None, np.random.default_rng(0))
    assert [(q.history, q.relevant) for q in queries] == [
        (("11",), frozenset({"12"})),
        (("12",), frozenset({"13", "14"})),
        (("12", "13"), frozenset({"14"})),
    ]
    for query in queries:
        known = events[events["event_ts"] < query.now]
        mine = known[known["session_id"] == query.session_id]
        assert set(mine["item_id"]) == set(query.history)  # nothing of what is wanted
        others = known[known["session_id"] != query.session_id]["session_id"]
        assert all(other < query.session_id for other in others)  # no visit further down the file


def test_the_same_lists_give_the_same_bytes_however_they_are_stored(tmp_path: Path) -> None:
    imported(tmp_path / "one", LISTS * 50)
    (tmp_path / "two").mkdir()
    table = pa.table({"items": LISTS * 50})
    pq.write_table(table, tmp_path / "two" / "sessions.parquet", row_group_size=7)
    ingest("test", Sessions(tmp_path / "two"), tmp_path / "two" / "data", LOOSE, LATEST)
    assert files(tmp_path / "one/data/raw") == files(tmp_path / "two/data/raw")


def test_a_list_with_a_hole_loses_that_contact_alone(tmp_path: Path) -> None:
    imported(tmp_path, [["a", None, "b"], [], None, ["c"]])
    kept = rows(tmp_path / "data" / "raw" / "events.parquet")
    assert [row["item_id"] for row in kept] == ["a", "b", "c"]
    (refused,) = rows(tmp_path / "data" / "quarantine" / "events.parquet")
    assert (refused["row"], refused["line"], refused["field"]) == (2, 1, "item_id")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            {"items": ["a b", "c"]},
            r"has type string; allowed: a list of texts or whole numbers",
        ),
        ({"basket": [["a"]]}, r"column 'items' is missing; columns are basket"),
        ({"items": pa.array([[], []], pa.list_(pa.string()))}, r"every list is empty"),
    ],
)
def test_what_is_no_list_of_ids_is_refused_with_what_is_allowed(
    tmp_path: Path, table: dict[str, Any], told: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "sessions.parquet")
    with pytest.raises(DataError, match=told):
        ingest("test", Sessions(tmp_path), tmp_path / "data", LOOSE, LATEST)


def test_params_yaml_names_it(tmp_path: Path) -> None:
    assert isinstance(adapter_of(Shop("x", "sessions", str(tmp_path), None, START, START, START)), Sessions)
    with pytest.raises(DataError, match=r"sessions\.parquet: no such file"):
        ingest("test", Sessions(tmp_path), tmp_path / "data", LOOSE, LATEST)
