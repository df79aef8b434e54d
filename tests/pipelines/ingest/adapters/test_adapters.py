"""Adapters: the table adapter with its mapping, GA360, and the real merch export."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from shops.small_export import LATEST, LOOSE, NOON, STRICT, rows

from feature_repo.errors import DataError, ParamsError
from feature_repo.params import Shop
from pipelines.ingest.adapters.adapters import adapter_of
from pipelines.ingest.adapters.ga360 import Ga360
from pipelines.ingest.adapters.table import Table, read_mapping
from pipelines.ingest.ingest import IngestParams, ingest
from pipelines.ingest.report import IngestReport

MERCH = Path(__file__).resolve().parents[5] / "shared" / "data" / "merch"


def test_an_unknown_adapter_is_named_with_those_that_exist() -> None:
    shop = Shop("x", "bigquery", "", None, NOON, NOON, NOON)
    with pytest.raises(ParamsError, match="'bigquery'; allowed: simulated, ga360, table"):
        adapter_of(shop)


def table_run(tmp_path: Path, mapping: dict[str, Any], constants: IngestParams = LOOSE) -> IngestReport:
    """Import tmp_path's files by the mapping; items are made when the mapping has none."""
    if "items" not in mapping:
        (tmp_path / "items.csv").write_text("sku,name\ni1,Pear\n")
        mapping = mapping | {"items": {"file": "items.csv", "columns": {"item_id": "sku", "title": "name"}}}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    adapter = Table(tmp_path, tmp_path / "mapping.yaml")
    return ingest("test", adapter, tmp_path / "data", constants, LATEST)


CSV_COLUMNS = {"event_ts": "when", "type": "action", "session_id": "visit", "item_id": "sku"}


def test_a_csv_in_local_time_with_the_shops_own_words(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(
        "when;action;visit;sku;paid\n"
        "2026-01-31 13:00:00;detail;s1;i1;\n"
        "2026-07-31 13:00:00;buy;s1;i1;9.5\n"
        "2026-07-31T13:00:00+05:00;buy;s1;i1;cheap\n"
        "2026-07-31T13:00:00Z;buy;s1;i1;8\n"
        "yesterday;buy;s1;i1;8\n"
        "only;three;cells\n"
        "2026-08-01 00:00:00;stare;s1;i1;\n"
    )
    events = {
        "file": "clicks.csv",
        "columns": CSV_COLUMNS | {"price": "paid"},
        "types": {"detail": "product_viewed", "buy": "purchase_completed"},
        "timezone": "Europe/Berlin",
        "delimiter": ";",
        "defaults": {"device": "desktop"},
    }
    report = table_run(tmp_path, {"events": events})
    kept = rows(tmp_path / "data" / "raw" / "events.parquet")
    assert [(r["event_id"], r["event_ts"].isoformat(), r["type"], r["price"]) for r in kept] == [
        ("clicks.csv:000000001", "2026-01-31T12:00:00+00:00", "product_viewed", None),
        ("clicks.csv:000000002", "2026-07-31T11:00:00+00:00", "purchase_completed", 9.5),
        ("clicks.csv:000000004", "2026-07-31T13:00:00+00:00", "purchase_completed", 8.0),
    ]
    assert all(r["device"] == "desktop" and r["consent"] for r in kept)
    assert all(r["created_ts"] == r["event_ts"] for r in kept)
    refused = rows(tmp_path / "data" / "quarantine" / "events.parquet")
    assert [(r["row"], r["field"], r["value"]) for r in refused] == [
        (3, "price", "cheap"),
        (5, "event_ts", "yesterday"),
        (6, "row", "only;three;cells"),
        (7, "type", "stare"),
    ]
    assert report.parts["events"].rows_in == 7


def test_times_without_a_zone_are_refused_where_the_mapping_names_none(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("when,action,visit,sku\n2026-01-31 13:00:00,click,s1,i1\n")
    table_run(tmp_path, {"events": {"file": "e.csv", "columns": CSV_COLUMNS}})
    (refused,) = rows(tmp_path / "data" / "quarantine" / "events.parquet")
    assert refused["reason"] == "not an instant with a time zone, for example 2026-01-31T12:00:00Z"


@pytest.mark.parametrize(("epoch", "factor"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
def test_epochs_and_parquet_with_integer_ids(tmp_path: Path, epoch: str, factor: int) -> None:
    when = [1_769_860_800 * factor, -5, 2**62]
    source = pa.table({"when": when, "action": ["click"] * 3, "visit": [7] * 3, "sku": ["i1"] * 3})
    pq.write_table(source, tmp_path / "e.parquet")
    table_run(tmp_path, {"events": {"file": "e.parquet", "columns": CSV_COLUMNS, "epoch": epoch}})
    (kept,) = rows(tmp_path / "data" / "raw" / "events.parquet")
    assert (kept["event_ts"], kept["session_id"]) == (NOON, "7")
    refused = rows(tmp_path / "data" / "quarantine" / "events.parquet")
    assert [row["value"] for row in refused] == ["-5", str(2**62)]


def test_item_cells_are_converted_and_lists_are_split(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("when,action,visit,sku\n2026-01-31T13:00:00Z,click,s1,i1\n")
    (tmp_path / "i.csv").write_text('sku,name,left,with\ni1,"Pear, green",3.0,i2|i3\ni2,Fig,3.5,\n')
    columns = {"item_id": "sku", "title": "name", "stock": "left", "accessories": "with"}
    items = {"file": "i.csv", "columns": columns, "defaults": {"currency": "EUR"}}
    table_run(tmp_path, {"events": {"file": "e.csv", "columns": CSV_COLUMNS}, "items": items})
    (kept,) = rows(tmp_path / "data" / "raw" / "items.parquet")
    assert kept["title"] == "Pear, green"
    assert (kept["stock"], kept["accessories"], kept["currency"]) == (3, ["i2", "i3"], "EUR")
    (refused,) = rows(tmp_path / "data" / "quarantine" / "items.parquet")
    assert (refused["row"], refused["field"], refused["value"]) == (2, "stock", "3.5")


def test_a_mapped_column_that_is_missing_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("when,action,visit\n2026-01-31T13:00:00Z,click,s1\n")
    with pytest.raises(DataError, match=r"column 'sku' is missing; columns are 'when, action, visit'"):
        table_run(tmp_path, {"events": {"file": "e.csv", "columns": CSV_COLUMNS}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"columns": CSV_COLUMNS | {"size": "sz"}}, "'size' is no canonical field"),
        ({"columns": {"type": "action"}}, "'event_ts' is not mapped"),
        ({"timezone": "Middle/Earth"}, "timezone: 'Middle/Earth'"),
        ({"epoch": "days"}, "epoch: 'days'; allowed: s, ms, us"),
    ],
)
def test_a_wrong_mapping_is_refused_by_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    events = {"file": "e.csv", "columns": CSV_COLUMNS} | change
    items = {"file": "i.csv", "columns": {"item_id": "sku", "title": "name"}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"events": events, "items": items}))
    with pytest.raises(DataError) as caught:
        read_mapping(tmp_path / "m.yaml")
    assert message in str(caught.value)
    assert str(tmp_path / "m.yaml") in str(caught.value)


def ga360(folder: Path) -> Path:
    """Two sessions at one instant: a page of three items, a click that leads to a view, a purchase."""
    folder.mkdir()
    hit = {"ts": NOON, "user_id": "u1", "session_id": "u1_1", "hit": 3, "list_name": "Category", "price": 5.0}
    context = {"device": "mobile", "country": "(not set)", "channel": "Organic Search"}
    shown = [hit | {"item": f"Mug {n}", "list_pos": n, "page": "/mugs"} for n in (1, 2, 3)]
    acts = [
        ("click", "Mug 2", 2, None),
        ("view", "Mug 2", 0, None),
        ("purchase", "Mug 1", 0, 1),
        ("purchase", "Mug 2", 0, 2),
    ]
    events = [
        hit | context | {"event": kind, "item": name, "list_pos": at, "qty": quantity}
        for kind, name, at, quantity in acts
    ]
    events[1] |= {"list_name": "(not set)", "price": 0.0}
    items = [
        {"name": "Mug 1", "category": "Home/Apparel/Men's/", "price": 5.0, "purchases": 9},
        {"name": "Mug 2", "category": "(not set)", "price": None, "purchases": 0},
    ]
    later = {"device": "tv", "country": "Peru", "channel": "Direct"}  # the part of the session after midnight
    sessions = [
        {"session_id": "u1_1", "ts": NOON} | context,
        {"session_id": "u1_1", "ts": NOON + timedelta(hours=12)} | later,
    ]
    parts = {"events": events, "impressions": shown, "items": items, "sessions": sessions}
    for name, records in parts.items():
        table = pa.Table.from_pylist(records)
        for column in ("qty", "hit"):
            if column in table.column_names:
                at = table.column_names.index(column)
                table = table.set_column(at, column, table[column].cast(pa.int64()))
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def test_ga360_maps_to_canonical_without_making_anything_up(tmp_path: Path) -> None:
    ingest("merch", Ga360(ga360(tmp_path / "ga")), tmp_path / "data", STRICT, LATEST)
    events = {row["event_id"]: row for row in rows(tmp_path / "data" / "raw" / "events.parquet")}
    assert list(events) == [  # of one instant: as the export lists them
        "u1_1:0003:click:001",
        "u1_1:0003:view:001",
        "u1_1:0003:purchase:001",
        "u1_1:0003:purchase:002",
    ]
    view = events["u1_1:0003:view:001"]
    assert view["type"] == "product_viewed" and view["item_id"] == "Mug 2"
    assert not any(
        view[name] for name in ("list_name", "position", "price", "quantity", "surface", "country")
    )
    assert events["u1_1:0003:purchase:002"]["quantity"] == 2
    shown = rows(tmp_path / "data" / "raw" / "impressions.parquet")
    assert [(row["item_id"], row["position"], row["list_name"]) for row in shown] == [
        ("Mug 1", 1, "/mugs"),
        ("Mug 2", 2, "/mugs"),
        ("Mug 3", 3, "/mugs"),
    ]
    context = [(row["device"], row["country"], row["channel"]) for row in shown]
    assert context == [("mobile", None, "Organic Search")] * 3
    mug, other = rows(tmp_path / "data" / "raw" / "items.parquet")
    assert (mug["category_path"], other["category_path"]) == ("Home/Apparel/Men's", None)
    assert [name for name, value in mug.items() if value is not None] == [
        "item_id",
        "title",
        "category_path",
        "price",
        "currency",
    ]


@pytest.mark.skipif(not MERCH.exists(), reason=f"the merch data is not at {MERCH}")
def test_a_slice_of_merch_arrives_whole(tmp_path: Path) -> None:
    for name in ("events", "impressions", "items"):
        first = next(pq.ParquetFile(MERCH / f"{name}.parquet").iter_batches(20_000))
        pq.write_table(pa.Table.from_batches([first]), tmp_path / f"{name}.parquet")
    (tmp_path / "sessions.parquet").symlink_to(MERCH / "sessions.parquet")
    report = ingest("merch", Ga360(tmp_path), tmp_path / "data", STRICT, LATEST)
    assert report.outputs["impressions"].rows == 20_000
    assert report.outputs["events"].rows == 20_000 - report.parts["events"].quarantined
    assert report.outputs["items"].rows == 523
    shown = pq.read_table(tmp_path / "data" / "raw" / "impressions.parquet")
    assert shown["device"].null_count == 0
    assert pc.min(shown["position"]).as_py() == 1
