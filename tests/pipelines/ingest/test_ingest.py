"""The batch import: what arrives in data/raw, what goes to quarantine, and what stops it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from shops.small_export import STRICT, event, files, item, rows, run, write

from feature_repo.errors import DataError
from feature_repo.events import ITEM_SCHEMA, SCHEMA
from pipelines import cli
from pipelines.ingest.quarantine import QUARANTINE

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    shown = [event(n, type="impression", event_id=f"shown{n}", position=n + 1) for n in range(4)]
    events = [event(n) for n in reversed(range(20))]
    return write(tmp_path / "export", events=events, impressions=shown, items=[item("i2"), item("i1")])


def test_raw_files_have_the_canonical_schema_and_are_sorted(export: Path, tmp_path: Path) -> None:
    run(export, tmp_path / "data")
    events = pq.read_table(tmp_path / "data" / "raw" / "events.parquet")
    assert events.schema.equals(SCHEMA)
    assert events["event_id"].to_pylist() == [f"e{n}" for n in range(20)]
    assert pq.read_schema(tmp_path / "data" / "raw" / "impressions.parquet").equals(SCHEMA)
    items = pq.read_table(tmp_path / "data" / "raw" / "items.parquet")
    assert items.schema.equals(ITEM_SCHEMA)
    assert items["item_id"].to_pylist() == ["i1", "i2"]
    footer = pq.ParquetFile(tmp_path / "data" / "raw" / "events.parquet").metadata
    assert footer.row_group(0).column(0).compression == "ZSTD"


def test_the_same_export_gives_the_same_bytes(export: Path, tmp_path: Path) -> None:
    run(export, tmp_path / "first")
    run(export, tmp_path / "second")
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_the_type_of_an_event_decides_its_file(tmp_path: Path) -> None:
    mixed = [event(0), event(1, type="impression"), event(2, type="search", item_id=None, query="pear")]
    report = run(write(tmp_path / "export", events=mixed, items=[item("i1")]), tmp_path / "data")
    assert report.outputs["events"].types == {"product_viewed": 1, "search": 1}
    assert report.outputs["impressions"].types == {"impression": 1}


def test_of_repeated_ids_the_first_accepted_row_is_kept_over_all_files(tmp_path: Path) -> None:
    events = [event(0, price=-1.0), event(0, price=1.0), event(0, price=2.0), event(1)]
    shown = [event(1, type="impression"), event(2, type="impression")]
    export = write(tmp_path / "export", events=events, impressions=shown, items=[item("i1"), item("i1")])
    run(export, tmp_path / "data")
    kept = rows(tmp_path / "data" / "raw" / "events.parquet")
    assert [(row["event_id"], row["price"]) for row in kept] == [("e0", 1.0), ("e1", 9.5)]
    refused = rows(tmp_path / "data" / "quarantine" / "events.parquet")
    assert [(row["row"], row["field"], row["value"]) for row in refused] == [
        (1, "price", "-1.0"),
        (3, "event_id", "e0"),
    ]
    (shown_twice,) = rows(tmp_path / "data" / "quarantine" / "impressions.parquet")
    assert shown_twice == {
        "source": "impressions.parquet",
        "row": 1,
        "line": None,
        "field": "event_id",
        "value": "e1",
        "reason": "not the first row with this event_id",
    }
    assert len(rows(tmp_path / "data" / "quarantine" / "items.parquet")) == 1


def test_items_outside_the_limits_are_refused_with_field_and_value(tmp_path: Path) -> None:
    bad: dict[str, Any] = {"title": None, "price": -3.0, "margin": 1.5, "stock": -1, "currency": "euro"}
    items = [item(field, **{field: value}) for field, value in bad.items()]
    export = write(tmp_path / "export", events=[event(0)], items=[item("i1"), *items])
    run(export, tmp_path / "data")
    refused = rows(tmp_path / "data" / "quarantine" / "items.parquet")
    assert [(row["field"], row["value"]) for row in refused] == [
        ("title", None),
        ("price", "-3.0"),
        ("margin", "1.5"),
        ("stock", "-1"),
        ("currency", "euro"),
    ]


def test_the_value_in_quarantine_is_the_value_as_text(tmp_path: Path) -> None:
    bad = [event(0, quantity=0), event(1, type="gaze"), event(2, event_ts=datetime(1999, 12, 31, tzinfo=UTC))]
    run(write(tmp_path / "export", events=[*bad, event(3)], items=[item("i1")]), tmp_path / "data")
    refused = rows(tmp_path / "data" / "quarantine" / "events.parquet")
    assert [row["value"] for row in refused] == ["0", "gaze", "1999-12-31 00:00:00+00"]
    assert refused[0]["reason"] == "not a whole number from 1 to 1000000"


def spoil(name: str) -> Callable[[Path], None]:
    """Ways to spoil export/events.parquet."""

    def truncate(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-100])

    def drop_a_column(path: Path) -> None:
        pq.write_table(pq.read_table(path).drop_columns(["session_id"]), path)

    def change_a_type(path: Path) -> None:
        table = pq.read_table(path)
        texts = pc.cast(table["price"], pa.string())
        pq.write_table(table.set_column(SCHEMA.get_field_index("price"), "price", texts), path)

    def damage_a_page(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[4:200] = bytes(196)
        path.write_bytes(content)

    return {
        "truncated": truncate,
        "damaged": damage_a_page,
        "missing column": drop_a_column,
        "wrong type": change_a_type,
        "no bytes": lambda path: path.write_bytes(b""),
        "no rows": lambda path: pq.write_table(SCHEMA.empty_table(), path),
        "no file": Path.unlink,
    }[name]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", "not a readable parquet file"),
        ("damaged", "cannot be read to its end"),
        ("missing column", "column 'session_id' is missing"),
        ("wrong type", "column 'price' has type string; allowed: a finite number (20 rows read)"),
        ("no bytes", "the file is empty (0 rows read)"),
        ("no rows", "the file has no rows (0 rows read)"),
        ("no file", "no such file"),
    ],
)
def test_a_malformed_file_is_named_and_earlier_outputs_stay(
    export: Path, tmp_path: Path, fault: str, message: str
) -> None:
    data = tmp_path / "data"
    run(export, data)
    before = files(data)
    spoil(fault)(export / "events.parquet")
    with pytest.raises(DataError) as caught:
        run(export, data)
    assert str(export / "events.parquet") in str(caught.value)
    assert message in str(caught.value)
    assert files(data) == before


def test_too_many_refused_rows_fail_but_leave_the_quarantine_to_look_at(export: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(export, data, STRICT)
    before = files(data / "raw")
    bad = [event(n, price=-1.0 if n < 3 else 1.0) for n in range(20)]
    write(export, events=bad)
    with pytest.raises(DataError, match=r"3 rows are quarantined \(15.00%.*price: not a finite number"):
        run(export, data, STRICT)
    assert files(data / "raw") == before
    assert pq.read_metadata(data / "quarantine" / "events.parquet").num_rows == 3
    report = json.loads((data / "reports" / "ingest.json").read_text())
    assert report["accepted"] is False
    assert report["parts"]["events"]["reasons"][0]["rows"] == 3


def test_a_share_at_the_limit_is_accepted(export: Path, tmp_path: Path) -> None:
    write(export, events=[event(n, price=-1.0 if n < 2 else 1.0) for n in range(20)])
    assert run(export, tmp_path / "data", STRICT).parts["events"].quarantined == 2


def test_the_report_and_its_picture_count_types_and_reasons(export: Path, tmp_path: Path) -> None:
    run(export, tmp_path / "data")
    report = json.loads((tmp_path / "data" / "reports" / "ingest.json").read_text())
    assert report["parts"]["events"] == {
        "source": "events.parquet",
        "rows_in": 20,
        "accepted": 20,
        "quarantined": 0,
        "reasons": [],
        "skipped": 0,
        "skips": [],
        "repaired": [],
        "told": [],
    }
    assert report["outputs"]["events"]["types"] == {"product_viewed": 20}
    assert report["outputs"]["events"]["last"] == "2026-01-31T12:00:19+00:00"
    picture = (tmp_path / "data" / "reports" / "ingest.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000


@pytest.fixture
def home(tmp_path: Path, export: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder whose shop is the canonical export."""
    shutil.copy(PROJECT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "data").mkdir()
    shop = {"name": "small", "adapter": "simulated", "source": "export", "mapping": None}
    cuts = {cut: f"2026-01-0{i}" for i, cut in enumerate(("rank_from", "valid_from", "test_from"), 1)}
    (tmp_path / "data" / "shop.yaml").write_text(yaml.safe_dump(shop | cuts))
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    yield tmp_path


def test_the_job_exits_0_and_prints_its_report_as_json(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["ingest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["events"]["rows"] == 20


def test_the_job_refuses_events_after_the_latest_instant_given(home: Path) -> None:
    assert cli.run(["ingest", "--latest", "2026-01-31T12:00:09"]) == 1
    refused = rows(home / "data" / "quarantine" / "events.parquet")
    assert [row["field"] for row in refused] == ["event_ts"] * 10


def test_the_job_exits_1_with_one_line_on_a_malformed_file(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "export" / "items.parquet").write_bytes(b"PAR1")
    assert cli.run(["ingest"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "items.parquet: not a readable parquet file" in line


def test_quarantine_files_of_an_earlier_run_are_replaced(export: Path, tmp_path: Path) -> None:
    write(export, events=[event(0, price=-1.0), event(1)])
    run(export, tmp_path / "data")
    write(export, events=[event(1)])
    run(export, tmp_path / "data")
    path = tmp_path / "data" / "quarantine" / "events.parquet"
    assert pq.read_table(path).equals(QUARANTINE.empty_table())
