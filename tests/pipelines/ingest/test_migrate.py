"""A history that Metarank or Gorse kept becomes a shop that can be ingested: the same events as live ones."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from shops.payloads import payloads

from feature_repo.errors import DataError, ParamsError
from feature_repo.events import ITEM_SCHEMA, SCHEMA
from feature_repo.params import load
from pipelines.ingest import ingest
from pipelines.ingest.adapters.adapters import Canonical
from pipelines.ingest.migrate import migrate
from serving.payloads.terms import Terms

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATEST = datetime(2026, 3, 1, tzinfo=UTC)
ITEM = {
    "event": "item",
    "id": "e9",
    "timestamp": "1769860800000",
    "item": "item1",
    "fields": [{"name": "title", "value": "Mug"}, {"name": "price", "value": 7}],
}


def rows(folder: Path, part: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(folder / f"{part}.parquet").to_pylist()
    return found


def test_metaranks_lines_become_the_events_that_its_door_takes(tmp_path: Path) -> None:
    lines = [*payloads(AT)["metarank"][2], ITEM, {**ITEM, "fields": []}]
    file = tmp_path / "history.jsonl.gz"
    text = b"\n".join(map(orjson.dumps, lines)) + b'\n{"event": "ranking", oops\n'
    file.write_bytes(gzip.compress(text))
    tally = migrate("metarank", [file], tmp_path / "out", load("compat", Terms), LATEST)
    assert dict(tally.events) == {"impression": 2, "click": 1, "product_viewed": 1, "purchase_completed": 1}
    assert (tally.records, tally.refused, dict(tally.dropped)) == (8, 1, {"unknown_event": 1})
    assert "row 8 of history.jsonl.gz" in tally.first
    events = rows(
        tmp_path / "out", "events"
    )  # a list of Metarank is none that we served: its name is no request id
    assert [(e["type"], e["item_id"], e["session_id"], e["request_id"]) for e in events] == [
        ("click", "item1", "s1", None),
        ("product_viewed", "item1", "s1", None),
        ("purchase_completed", "item1", "s1", None),
    ]
    (item,) = rows(tmp_path / "out", "items")
    assert (item["item_id"], item["title"], item["price"]) == ("item1", "Mug", 7.0)


def test_gorses_dumps_become_visits_of_events_close_to_each_other(tmp_path: Path) -> None:
    feedback, items, users = (tmp_path / f"{name}.csv" for name in ("feedback", "items", "users"))
    times = [AT, AT + timedelta(minutes=10), AT + timedelta(hours=5)]
    told = [f"read,u1,i{n},1,{t:%Y-%m-%d %H:%M:%S} +0000 UTC\n" for n, t in enumerate(times)]
    told += ["nod,u1,i0,1,2026-01-31 12:00:00 +0000 UTC\n", "read,u2,i0,1,tomorrow\n"]
    feedback.write_text("feedback_type,user_id,item_id,value,time_stamp\n" + "".join(told))
    labels = '"{""title"": ""Mug"", ""price"": 7.5}"'
    items.write_text(
        "item_id,is_hidden,categories,time_stamp,labels,description\n"
        f"i0,false,Home|Mugs,2026-01-01 00:00:00 +0000 UTC,{labels},nice\n"
        "i1,true,,0001-01-01 00:00:00 +0000 UTC,,\n"
    )
    users.write_text("user_id,labels\nu1,\n")
    out = tmp_path / "out"
    tally = migrate("gorse", [feedback, items, users], out, load("compat", Terms), LATEST)
    assert dict(tally.events) == {"product_viewed": 3} and tally.refused == 1
    assert "row 5 of feedback.csv" in tally.first and "event_ts" in tally.first
    assert dict(tally.dropped) == {"unknown_event": 1, "no_event_and_no_item": 1}
    first, second, third = (event["session_id"] for event in rows(out, "events"))
    assert first == second != third and str(first).startswith("u1.")
    mug, hidden = rows(out, "items")
    assert (mug["title"], mug["category_path"], mug["price"], mug["stock"]) == ("Mug", "Home/Mugs", 7.5, None)
    assert (hidden["title"], hidden["stock"], hidden["available_from"]) == ("i1", 0, None)


def test_what_was_migrated_can_be_ingested(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_bytes(b"\n".join(map(orjson.dumps, [*payloads(AT)["metarank"][2], ITEM])))
    migrate("metarank", [file], tmp_path / "out", load("compat", Terms), LATEST)
    for part, schema in (("events", SCHEMA), ("impressions", SCHEMA), ("items", ITEM_SCHEMA)):
        assert pq.read_schema(tmp_path / "out" / f"{part}.parquet") == schema
    constants = load("ingest", ingest.IngestParams)
    report = ingest.ingest("mine", Canonical(tmp_path / "out"), tmp_path / "data", constants, LATEST)
    assert {name: part.quarantined for name, part in report.parts.items()} == dict.fromkeys(report.parts, 0)


def test_what_cannot_be_migrated_is_refused_by_name(tmp_path: Path) -> None:
    terms = load("compat", Terms)
    with pytest.raises(ParamsError, match="'nosto' is unknown; allowed: metarank, gorse"):
        migrate("nosto", [tmp_path / "x"], tmp_path / "out", terms, LATEST)
    file = tmp_path / "users.jsonl"
    file.write_text('{"event": "user", "id": "1", "user": "u"}\n')
    with pytest.raises(DataError, match="nothing that happened is in it"):
        migrate("metarank", [file], tmp_path / "out", terms, LATEST)
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        migrate("metarank", [tmp_path / "gone.jsonl"], tmp_path / "out", terms, LATEST)
