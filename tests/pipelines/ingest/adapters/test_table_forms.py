"""What real exports look like: each is read as it is meant, or refused with its line, value and a way on."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from shops.small_export import LATEST, LOOSE, rows

from feature_repo.errors import DataError, ParamsError
from feature_repo.params import load
from pipelines.ingest.adapters.cells import literal
from pipelines.ingest.adapters.conversions import number
from pipelines.ingest.adapters.mapping import read_mapping
from pipelines.ingest.adapters.table import Table
from pipelines.ingest.ingest import IngestParams, ingest
from pipelines.ingest.report import IngestReport

COLUMNS = {"event_ts": "when", "type": "action", "session_id": "visit", "item_id": "sku"}
LINE = "2026-01-31T12:00:00Z,click,s1,i1\n"


def run(folder: Path, events: dict[str, Any], constants: IngestParams = LOOSE, **parts: Any) -> IngestReport:
    """Import by a mapping with these events, whose columns are COLUMNS unless it names others."""
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump({"events": {"file": "e.csv", "columns": COLUMNS} | events} | parts))
    return ingest("test", Table(folder, path), folder / "data", constants, LATEST)


def kept(folder: Path, part: str = "events") -> list[dict[str, Any]]:
    return rows(folder / "data" / "raw" / f"{part}.parquet")


def refused(folder: Path, part: str = "events") -> list[tuple[Any, ...]]:
    found = rows(folder / "data" / "quarantine" / f"{part}.parquet")
    return [(row["line"], row["field"], row["value"], row["reason"]) for row in found]


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> IngestParams:
    """The repairs of params.yaml, with any share of refused rows allowed."""
    monkeypatch.setenv("ENDCAP_HOME", str(Path(__file__).resolve().parents[4]))
    return dataclasses.replace(load("ingest", IngestParams), max_quarantined_share=1.0)


@pytest.mark.parametrize(
    ("cell", "utc"),
    [
        ("2026-01-31 09:30:00 -0500", "14:30"),
        ("2026-01-31 09:30 GMT", "09:30"),
        ("2026-01-31 09:30:00 America/New_York", "14:30"),
        ("2026-01-31 09:30:00 PM", "12:30"),
        ("31 Jan 2026 9:30 AM", "00:30"),
        ("2026-01-31 09:30:00", "00:30"),
    ],
)
def test_a_zone_in_a_cell_wins_over_the_mappings(tmp_path: Path, cell: str, utc: str) -> None:
    (tmp_path / "e.csv").write_text(f"when,action,visit,sku\n{cell},click,s1,i1\n")
    run(tmp_path, {"timezone": "Asia/Tokyo"})
    assert [f"{row['event_ts']:%H:%M}" for row in kept(tmp_path)] == [utc]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("2026-01-31 09:30:00 XST", "the zone 'XST' is not understood"),
        ("2026-01-31 09:30:00 EST", "the zone 'EST' is not understood"),
        ("03/04/2026 09:30", "day and month could be swapped; set time_format"),
        ("2026-02-30 09:30:00", "no such time"),
        ("20260131", "set epoch (s, ms, us) or time_format"),
    ],
)
def test_a_time_that_is_not_certain_is_refused_by_name(tmp_path: Path, cell: str, reason: str) -> None:
    (tmp_path / "e.csv").write_text(f"when,action,visit,sku\n{cell},click,s1,i1\n")
    run(tmp_path, {"timezone": "Asia/Tokyo"})
    ((line, field, value, told),) = refused(tmp_path)
    assert (line, field, value) == (2, "event_ts", cell) and reason in told


def test_a_time_format_reads_dates_day_first_and_a_zone_may_follow(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(
        "when,action,visit,sku\n03.04.2026 9:30,click,s1,i1\n"
        "03.04.2026 9:30 +0200,click,s1,i1\n4/3/2026,click,s1,i1\n"
    )
    run(tmp_path, {"timezone": "UTC", "time_format": "%d.%m.%Y %H:%M"})
    assert [row["event_ts"].isoformat()[:16] for row in kept(tmp_path)] == [
        "2026-04-03T07:30",
        "2026-04-03T09:30",
    ]
    assert refused(tmp_path)[0][3] == "not in the time_format %d.%m.%Y %H:%M"


def test_a_column_of_counts_names_the_likely_unit(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("when,action,visit,sku\n1769857200123,click,s1,i1\n")
    with pytest.raises(DataError, match=r"column 'when' has numbers .* 1769857200123.* set epoch: ms"):
        run(tmp_path, {})


def test_an_open_quote_costs_its_own_line_only(tmp_path: Path) -> None:
    good = LINE * 50
    (tmp_path / "e.csv").write_text(
        f'when,action,visit,sku\n{good}2026-01-31T12:00:00Z,click,s1,"i1\n{good}"x"\n'
    )
    report = run(tmp_path, {})
    assert report.parts["events"].accepted == 100
    assert [(line, field) for line, field, *_ in refused(tmp_path)] == [(52, "row"), (103, "row")]


def test_quoted_cells_may_have_several_lines_and_doubled_quotes(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(f"when,action,visit,sku\n{LINE}")
    (tmp_path / "i.csv").write_text('sku,name,text\ni1,"27"" screen","one\n\ntwo"\ni2,Pear,\n')
    columns = {"item_id": "sku", "title": "name", "description": "text"}
    report = run(tmp_path, {}, items={"file": "i.csv", "columns": columns})
    assert [(row["title"], row["description"]) for row in kept(tmp_path, "items")] == [
        ('27" screen', "one\n\ntwo"),
        ("Pear", None),
    ]
    assert report.parts["items"].rows_in == 2


def test_many_files_are_one_part_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    for day, sku in (("02", "b"), ("01", "a")):
        text = f"when\taction\tvisit\tsku\n2026-01-31T12:00:00Z\tclick\ts1\t{sku}\n"
        (tmp_path / "days" / f"{day}.TSV.gz").write_bytes(gzip.compress(text.encode("utf-16")))
    report = run(tmp_path, {"file": "days/*.TSV.gz"})
    assert [(row["item_id"], row["event_id"]) for row in kept(tmp_path)] == [
        ("a", "days/01.TSV.gz:000000001"),
        ("b", "days/02.TSV.gz:000000001"),
    ]
    assert report.parts["events"].told == ("2 files", "delimiter tab")
    with pytest.raises(DataError, match=r"is a folder.*write 'days/\*\.csv'"):
        run(tmp_path, {"file": "days"})


def test_json_lines_keep_their_numbers_as_written(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(
        '{"t":"2026-01-31T12:00:00Z","v":{"id":12345678901234567890123},"item":{"sku":"i1"},"price":9.50}\nnope\n'
    )
    columns = {"event_ts": "t", "session_id": "v.id", "item_id": "item.sku", "price": "price"}
    run(tmp_path, {"file": "e.jsonl", "columns": columns, "defaults": {"type": "purchase_completed"}})
    ((row,), ((line, _, value, _),)) = kept(tmp_path), refused(tmp_path)
    assert (row["session_id"], row["price"]) == ("12345678901234567890123", 9.5)
    assert (line, value) == (2, "nope")


def test_events_of_one_instant_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    skus = [f"i{n}" for n in range(12)]
    (tmp_path / "e.csv").write_text(
        "when,action,visit,sku\n" + "".join(LINE.replace("i1", sku) for sku in skus)
    )
    run(tmp_path, {})
    assert [row["item_id"] for row in kept(tmp_path)] == skus
    assert sorted(kept(tmp_path), key=lambda row: row["event_id"]) == kept(tmp_path)


def test_words_for_nothing_are_no_shopper_and_a_shop_may_have_its_own(tmp_path: Path) -> None:
    words = ["NULL", r"\N", "NaN", "(not set)", "undefined", "  ", "", "guest"]
    lines = "".join(LINE.replace("\n", f",{word}\n") for word in words)
    (tmp_path / "e.csv").write_text(f"when,action,visit,sku,who\n{lines}")
    columns = {"columns": COLUMNS | {"user_id": "who"}}
    run(tmp_path, columns)
    assert {row["user_id"] for row in kept(tmp_path)} == {None, "guest"}
    run(tmp_path, columns | {"nothing": ["guest"]})
    assert [row["user_id"] for row in kept(tmp_path)] == [*words[:5], None, None, None]


def test_returns_and_odd_fields_are_counted_and_cost_no_row(tmp_path: Path, shipped: IngestParams) -> None:
    (tmp_path / "e.csv").write_text(
        "when,action,visit,sku,n,got\n"
        "2026-01-31T12:00:00Z,buy,s1,i1,1.5,9999-12-31T23:59:59Z\n"
        "2026-01-31T12:00:00Z,buy,s1,i1,-2,\n"
        "2026-01-31T12:00:00Z,back,s1,i1,1,\n"
        "2026-01-31T12:00:00Z,stare,s1,i1,1,\n"
    )
    (tmp_path / "i.csv").write_text("sku,name,left,gain,with\ni1,,-1,-.2,i2 || i9|i1|i2\ni2,Fig,3,.5,\n")
    columns = {"item_id": "sku", "title": "name", "stock": "left", "margin": "gain", "accessories": "with"}
    events = {
        "columns": COLUMNS | {"quantity": "n", "created_ts": "got"},
        "types": {"buy": "purchase_completed", "back": "return"},
        "other_types": "skip",
    }
    report = run(tmp_path, events, shipped, items={"file": "i.csv", "columns": columns})
    (row,) = kept(tmp_path)
    assert row["quantity"] is None and row["created_ts"] == row["event_ts"]
    part = report.parts["events"]
    assert (part.rows_in, part.accepted, part.quarantined, part.skipped) == (4, 1, 0, 3)
    assert sorted((why.field, why.rows) for why in part.repaired) == [("created_ts", 1), ("quantity", 1)]
    item = kept(tmp_path, "items")[0]
    assert (item["title"], item["stock"], item["margin"], item["accessories"]) == ("i1", 0, 0.0, ["i2"])
    mended = {why.field: why.rows for why in report.parts["items"].repaired}
    assert mended == {"title": 1, "stock": 1, "margin": 1, "accessories": 1}


def test_without_items_the_catalogue_is_made_of_the_events(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(f"when,action,visit,sku\n{LINE}{LINE.replace('i1', 'i0')}{LINE}")
    report = run(tmp_path, {})
    assert [(row["item_id"], row["title"]) for row in kept(tmp_path, "items")] == [("i0", "i0"), ("i1", "i1")]
    assert "the export has no items" in report.parts["items"].told[0]


def test_too_many_refused_rows_name_the_first_and_the_switch(tmp_path: Path, shipped: IngestParams) -> None:
    (tmp_path / "e.csv").write_text(f"when,action,visit,sku\n{LINE}{LINE.replace('click', 'stare')}")
    with pytest.raises(DataError, match=r"the first is line 3 of e\.csv: 'stare'.*other_types: skip"):
        run(tmp_path, {}, dataclasses.replace(shipped, max_quarantined_share=0.01))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"defaults": {"country": "NO", "price": "cheap"}},
            "events.defaults.price: 'cheap'; allowed: a finite number",
        ),
        (
            {"types": {"detail": "product_view"}},
            "events.types.detail: 'product_view'; allowed: one of impression",
        ),
        ({"delimiter": "ab"}, "events.delimiter: 'ab'"),
        ({"time_format": "%H:%M"}, "events.time_format: '%H:%M'"),
        ({"columns": ["when"]}, "events.columns: ['when']"),
    ],
)
def test_each_fault_of_a_mapping_has_its_place_value_and_what_is_allowed(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path, change)
    assert message in str(caught.value)


def test_a_mapping_holds_the_text_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "events:\n  file: e.csv\n  columns: {event_ts: 2026-01-01, session_id: 01, item_id: null, type: on}\n"
        "  types: {yes: click}\n  defaults: {country: NO}\n"
    )
    events = read_mapping(path).events
    assert read_mapping(path).events.encoding == "utf-8"
    path.write_text(path.read_text() + "  encoding: cp1252\n")
    assert read_mapping(path).events.encoding == "windows-1252"
    assert list(events.columns.values()) == ["2026-01-01", "01", "null", "on"]
    assert (events.types, events.defaults) == ({"yes": "click"}, {"country": "NO"})
    path.write_text("events: {file: a, file: b, columns: {}}")
    with pytest.raises(DataError, match="the key 'file' stands twice"):
        read_mapping(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"when,action,visit,sku,sku\n" + LINE.encode(),
            r"column 'sku' is there 2 times \(cells 4 and 5",
        ),
        ("when,action,visit,sku\n\nx,ü".encode("latin-1"), "line 3, byte 3: 0xfc is not UTF-8.*encoding"),
        (b"PK\x03\x04..", "a ZIP archive or an Excel workbook"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "e.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        run(tmp_path, {})


def test_a_repair_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(f"when,action,visit,sku\n{LINE}")
    with pytest.raises(ParamsError, match=r"ingest\.repairs\.event_ts: 'empty'; allowed: quarantine"):
        run(tmp_path, {}, dataclasses.replace(LOOSE, repairs={"event_ts": "empty"}))


@pytest.mark.parametrize(
    ("decimal", "text", "value"),
    [
        (None, "12.99", 12.99),
        (None, "12,99", None),
        (",", "1.299,50", 1299.5),
        (",", "12.99", None),
        (".", "1,299.50", 1299.5),
        (None, "0x10", None),
        (None, "\u0661", None),
    ],
)
def test_a_number_is_what_it_says_or_nothing(decimal: str | None, text: str, value: float | None) -> None:
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT {number(literal(text), decimal)}").fetchall()
    assert found == [(value,)]
