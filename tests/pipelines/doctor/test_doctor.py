"""A first look at an export: each finding by its words, the counts against pandas."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from shops.simulated_weeks import tiny_run
from shops.small import open_home
from shops.small_export import NOON, event, item, write

from pipelines import cli
from pipelines.doctor.diagnosis import cuts
from pipelines.doctor.doctor import _guessed
from pipelines.simulate.simulate import write as write_simulated

CONTACTS = ["product_viewed", "add_to_cart", "purchase_completed"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return open_home(tmp_path, monkeypatch)


def told(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    assert cli.run(["doctor", *args]) == code
    found = capsys.readouterr()
    return found.out + found.err


def visit(*items: str, **changes: Any) -> list[dict[str, Any]]:
    return [event(n, item_id=name, **changes) for n, name in enumerate(items)]


LATER = visit("i3", event_id="x", event_ts=NOON + timedelta(minutes=5))
PLAIN = [item("i1"), item("i2", stock=3, category_path="Lamps"), item("i3")]


@pytest.mark.parametrize(
    ("events", "items", "words"),
    [
        (
            visit("i1", "i2", event_ts=NOON) + LATER,
            PLAIN,
            "66.7 % of the contacts share",
        ),
        (visit("i1", "i2", "I1"), PLAIN, "item_id: some differ only by case or blanks"),
        (visit("i1", "i2", "I1"), PLAIN, "are different ones: 'I1' and 'i1'"),
        (visit("i1", "i2", event_id="same"), PLAIN, "event_id: 1 rows repeat one"),
        (visit("i1", "i2", "i9"), PLAIN, "items: 1 events are of products that the catalogue lacks"),
        (visit("i1", "i2"), PLAIN, "items: 1 of 3 products were never touched"),
        (visit("i1", "i2"), PLAIN, "items: 2 of 3 products have no category_path"),
        (visit("i1", "i2"), PLAIN, "items: 2 of 3 products have no stock"),
        (visit("i1", "i2"), [item("i1", price=None), item("i2")], "items: 1 of 2 products have no price"),
        (visit("i1", "i2"), [item("i1", title=None), item("i2")], "items: 1 of 2 products have no title"),
        (visit("i1", "i2"), PLAIN, "no impressions: nothing is learned from what was shown"),
        (visit("i1", "i2"), PLAIN, "no carts: nothing is learned from carts"),
        (visit("i1", "i2"), PLAIN, "no purchases: nothing is learned from purchases"),
        (visit("i1", "i2", type="purchase_completed"), PLAIN, "orders only: baskets are the visits"),
        (visit("i1", "i2"), PLAIN, "no known shoppers: every visit starts from nothing"),
        (
            visit("i1", "i2", user_id="ann"),
            PLAIN,
            "no returning shoppers: nothing is learned",
        ),
        (visit("i1", "i1"), PLAIN, "no visits of two items: there is nothing to learn an order from"),
        (visit("i1", "i2"), PLAIN, "visits: 1, 100.0 % of them anonymous"),
        (visit("i1", "i2"), PLAIN, "unit seconds"),
        (visit("i1", "i2"), PLAIN, "read as simulated, as guessed from its files"),
        (visit("i1", "i2"), PLAIN, "about 3 minutes and 0.7 GB on two cores, an estimate"),
    ],
)
def test_what_an_export_lacks_is_told(
    events: list[dict[str, Any]],
    items: list[dict[str, Any]],
    words: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = told(capsys, str(write(home / "export", events=events, items=items)))
    assert words in " ".join(text.split())
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert sorted(path.name for path in home.iterdir()) == ["export", "params.yaml"]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (visit("i1", "i2", type="click"), "no event is a contact with a product. Next: map"),
        (visit("i1", "i2", event_ts=NOON), "all contacts have one instant. Next: export the times"),
    ],
)
def test_what_cannot_be_trained_ends_with_1_and_the_reason(
    events: list[dict[str, Any]], why: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, str(write(home / "export", events=events, items=PLAIN)), code=1)
    assert f"cannot be trained: {why}" in text


def test_a_mapping_in_the_folder_is_found_and_days_are_recognised(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"2026-01-{day:02d},s{day},{name}" for day in range(1, 6) for name in ("a", "b")]
    (home / "export").mkdir()
    (home / "export/orders.csv").write_text("day,order,sku\n" + "\n".join(lines))
    (home / "export/mapping.yaml").write_text(
        "events: {file: orders.csv, columns: {event_ts: day, session_id: order, item_id: sku},\n"
        "  defaults: {type: purchase_completed}, timezone: Europe/Berlin}\n"
    )
    text = told(capsys, str(home / "export"))
    assert "read as table, as guessed from its files" in text
    assert "time: unit days; 100.0 % of contacts share an instant" in text
    assert "orders only: baskets are the visits" in text


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("orders_2026.csv", "shopify"),
        ("orders.jsonl", "woocommerce"),
        ("order_completed.csv", "segment"),
        ("events_20260131.jsonl", "ga4"),
    ],
)
def test_a_platform_is_known_by_how_its_files_are_called(tmp_path: Path, name: str, adapter: str) -> None:
    (tmp_path / name).write_text("\n")
    assert _guessed(tmp_path) == (adapter, None)


def test_a_folder_that_nothing_fits_says_what_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = write(home / "empty")
    assert "no adapter fits what lies there. Next: write a mapping file" in told(capsys, str(empty), code=1)
    assert "nowhere: no such folder; shop: 'nowhere' is unknown" in told(capsys, "nowhere", code=1)


def test_a_picture_is_drawn_where_it_is_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = write(home / "export", events=visit("i1", "i2"), items=PLAIN)
    assert "seen.png shows it" in told(capsys, str(export), "--picture", str(home / "seen.png"))
    assert (home / "seen.png").read_bytes()[:4] == b"\x89PNG"


def test_cuts_of_a_short_span_keep_their_hours() -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    assert cuts(first, first + timedelta(days=1))["valid_from"] == "2026-01-01T18:00:00Z"


def test_the_counts_are_those_of_pandas(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_simulated(tiny_run(), home / "data/export")
    seen = json.loads(told(capsys, "simulated", "--json"))["seen"]
    parts = {part: pd.read_parquet(home / f"data/export/{part}.parquet") for part in seen["parts"]}
    both = pd.concat([parts["events"], parts["impressions"]])
    contacts = both[both.type.isin(CONTACTS) & both.item_id.notna()]
    visits = contacts.groupby("session_id")
    shoppers = contacts.dropna(subset="user_id").groupby("user_id").session_id.nunique()
    assert seen["parts"] == {part: len(table) for part, table in parts.items()}
    assert seen["types"] == both.type.value_counts().to_dict()
    assert seen["contacts"] == len(contacts)
    ordered = contacts[visits.item_id.transform("nunique") > 1]
    assert seen["in_order"] == len(ordered)
    assert seen["tied"] == int(
        (ordered.groupby(["session_id", "event_ts"]).item_id.transform("nunique") > 1).sum()
    )
    assert seen["visits"] == visits.ngroups
    assert seen["anonymous"] == int(visits.user_id.count().eq(0).sum())
    assert seen["following"] == int(visits.item_id.nunique().gt(1).sum())
    assert (seen["shoppers"], seen["returning"]) == (len(shoppers), int(shoppers.gt(1).sum()))
    assert seen["repeated_ids"] == int(both.event_id.duplicated().sum())
    ids = set(parts["items"].item_id)
    assert seen["untouched"] == len(ids - set(contacts.item_id))
    assert seen["unknown"] == int((~both.item_id.dropna().isin(ids)).sum())
    assert seen["without"] == {fact: int(parts["items"][fact].isna().sum()) for fact in seen["without"]}
    assert seen["days"] == contacts.event_ts.dt.strftime("%Y-%m-%d").value_counts().sort_index().to_dict()


@pytest.mark.parametrize(("unread", "refuses"), [(1, False), (3, True)])
def test_it_says_beforehand_that_ingest_will_refuse(
    unread: int, refuses: bool, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "export"
    folder.mkdir()
    lines = [f"e{n},s{n // 2},2026-01-31T12:00:00Z,product_viewed,P{n % 3},many" for n in range(unread)]
    lines += [f"f{n},t{n // 2},2026-01-31T12:00:0{n % 9}Z,product_viewed,P{n % 3},1" for n in range(200)]
    names = ["event_id", "session_id", "event_ts", "type", "item_id", "quantity"]
    (folder / "e.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    (folder / "m.yaml").write_text(
        f"events: {{file: e.csv, columns: {{{', '.join(f'{n}: {n}' for n in names)}}}}}"
    )
    said = " ".join(told(capsys, str(folder)).split())
    assert f"events: {unread} rows ({100 * unread / (200 + unread):.1f} %) have a cell" in said
    assert ("and refuses the export: at most 1 % may" in said) == refuses
