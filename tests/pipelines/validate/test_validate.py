"""Great Expectations on raw data and training rows: what passes, what fails, and how it is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from feature_repo.events import ITEM_SCHEMA, SCHEMA
from pipelines import cli
from pipelines.validate.validate import read

PROJECT = Path(__file__).resolve().parents[3]
START = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = ("product_viewed", "add_to_cart", "purchase_completed")


def events(n: int = 300, **changes: Any) -> pa.Table:
    """n product events, one per hour."""
    rows = []
    for i in range(n):
        when = START + timedelta(hours=i)
        row = {
            "event_id": f"e{i}",
            "event_ts": when,
            "created_ts": when,
            "type": TYPES[i % 3],
            "consent": True,
        }
        rows.append(row | {"session_id": f"s{i // 4}", "item_id": f"i{i % 20}", "price": 5.0} | changes)
    return pa.Table.from_pylist(rows, SCHEMA)


def items(n: int = 20) -> pa.Table:
    rows = [
        {"item_id": f"i{i}", "title": f"Item {i}", "category_path": "A/B", "price": 5.0, "currency": "EUR"}
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows, ITEM_SCHEMA)


def training(queries: int = 30, candidates: int = 5) -> pd.DataFrame:
    """Seeded training rows; the first candidate of each query is the positive."""
    n = queries * candidates
    frame = pd.DataFrame(
        np.random.default_rng(0).normal(size=(n, len(COLUMNS))).astype(np.float32), columns=list(COLUMNS)
    )
    frame.insert(0, "query_id", np.repeat(np.arange(queries), candidates))
    frame.insert(1, "split", np.where(frame["query_id"] < queries // 2, "train", "valid"))
    frame.insert(2, "item_id", [f"i{i % candidates}" for i in range(n)])
    frame.insert(3, "label", (np.arange(n) % candidates == 0).astype(np.int8))
    return frame


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with raw data and training rows that pass."""
    constants = yaml.safe_load((PROJECT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(constants))
    for folder in ("raw", "features", "reports"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    cuts = {"rank_from": "2026-01-03", "valid_from": "2026-01-05", "test_from": "2026-01-07"}
    shop = {"name": "small", "adapter": "simulated", "source": "export", "mapping": None}
    (tmp_path / "data" / "shop.yaml").write_text(yaml.safe_dump(shop | cuts))
    shown = events(type="impression").set_column(
        0, SCHEMA.field("event_id"), pa.array([f"shown{i}" for i in range(300)])
    )
    save(tmp_path, "events", events())
    save(tmp_path, "impressions", shown)
    save(tmp_path, "items", items())
    training().to_parquet(tmp_path / "data" / "features" / "ranker_training.parquet")
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def save(home: Path, name: str, table: pa.Table) -> None:
    pq.write_table(table, home / "data" / "raw" / f"{name}.parquet")


def validate(what: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code of the job, and what it printed about failures."""
    code = cli.run(["validate", what])
    lines = capsys.readouterr().out.splitlines()
    return code, [line.strip().removeprefix("FAILED ") for line in lines if "FAILED" in line]


def test_good_raw_data_passes_with_pages_that_need_no_network(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate("raw", capsys) == (0, [])
    pages = list((home / "data" / "reports" / "data_docs" / "raw").rglob("*.html"))
    assert {page.name for page in pages} >= {"index.html", "data-events.html", "data-items.html"}
    for page in pages:
        html = page.read_text()
        assert not re.search(r"<(script|link|img|iframe)[^>]*https?://", html), page
        assert "@import" not in html
    assert "<td>300 of 300</td>" in (home / "data/reports/data_docs/raw/index.html").read_text()


def test_results_and_pages_are_the_same_bytes_in_every_run(home: Path) -> None:
    reports = home / "data" / "reports"
    path = reports / "validate_raw.json"

    def pages() -> dict[Path, bytes]:
        return {page: page.read_bytes() for page in (reports / "data_docs").rglob("*") if page.is_file()}

    assert cli.run(["validate", "raw"]) == 0
    first, shown = path.read_bytes(), pages()
    assert cli.run(["validate", "raw"]) == 0
    assert path.read_bytes() == first
    assert pages() == shown and len(shown) >= 4
    results = json.loads(first)
    assert set(results["tables"]) == {"events", "impressions", "items"}
    assert results["tables"]["events"]["rows"] == 300


def test_failures_of_raw_data_are_told_in_plain_words(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = events(200, item_id="gone").to_pandas()
    bad.loc[:1, "price"] = -1.0
    bad.loc[5, "event_id"] = "e4"
    bad.loc[7, "type"] = "kitten"
    save(home, "events", pa.Table.from_pandas(bad, SCHEMA))
    catalogue = items(9).drop_columns(["stock"])
    euros = pa.array(["EUR"] * 8 + ["USD"])
    at = catalogue.column_names.index("currency")
    save(home, "items", catalogue.set_column(at, "currency", euros))
    code, told = validate("raw", capsys)
    assert code == 1
    assert "events.price: 2 of 200 rows (1.00%) are not from 0 to 1e+09; for example -1.0, -1.0" in told
    assert "events.event_id: 2 of 200 rows (1.00%) are not unique; for example 'e4', 'e4'" in told
    assert (
        "events.item_in_catalogue: 200 of 200 rows (100.00%) are of no item in the catalogue, "
        "at most 1.00% may be; for example 'gone', 'gone', 'gone'"
    ) in told
    assert any(line.startswith("events.type: 1 of 200 rows") and "'kitten'" in line for line in told)
    assert "items.stock: the column is missing" in told
    assert "items.currency: 2 values, not at most 1" in told
    assert not any("could not be checked" in line for line in told)
    assert json.loads((home / "data/reports/validate_raw.json").read_text())["success"] is False
    assert "the column is missing" in (home / "data/reports/data_docs/raw/index.html").read_text()


def test_data_that_ends_before_the_test_cut_fails(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(home, "events", events(120))
    code, told = validate("raw", capsys)
    assert code == 1
    (line,) = told
    assert line.startswith(
        "events.event_ts: the highest value is 2026-01-05T23:00:00+00:00, not at least 2026-01-07"
    )


def infinite(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[3, "price_log"] = np.inf
    frame.loc[4, "price_log"] = -np.inf
    return frame


def unknown(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[:2, "tower_score"] = np.nan
    return frame


def wrong_label(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[0, "label"] = 7
    return frame


def no_positive(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[frame["query_id"] == 4, "label"] = 0
    return frame


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[1, "item_id"] = "i0"
    return frame


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            infinite,
            "ranker_training.price_log: 2 of 150 rows (1.33%) are not from -3.40282e+38 to 3.40282e+38",
        ),
        (unknown, "ranker_training.tower_score: 3 of 150 rows (2.00%) are null"),
        (wrong_label, "ranker_training.label: 1 of 150 rows (0.67%) are not 0 or 1 or 2 or 3; for example 7"),
        (no_positive, "ranker_queries.best_label: 1 of 30 rows (3.33%) are not at least 1; for example 0"),
        (repeated, "ranker_training: 2 of 150 rows (1.33%) repeat query_id and item_id"),
        (lambda frame: frame.drop(columns="ease_score"), "ranker_training.ease_score: the column is missing"),
    ],
)
def test_a_training_set_with_one_fault_fails_on_that_fault(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    told: str,
) -> None:
    spoil(training()).to_parquet(home / "data" / "features" / "ranker_training.parquet")
    code, lines = validate("training", capsys)
    assert code == 1
    assert any(line.startswith(told) for line in lines), lines


def test_a_good_training_set_passes_though_features_that_may_be_unknown_are(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = training()
    frame["margin"] = np.float32("nan")
    frame.to_parquet(home / "data" / "features" / "ranker_training.parquet")
    assert validate("training", capsys) == (0, [])


def test_what_a_shop_has_none_of_is_no_failure_and_is_told_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sales only, without impressions, prices and categories; half of them missing is still a fault."""
    bare = items().drop_columns(["price", "category_path"])
    for name in ("price", "category_path"):
        bare = bare.append_column(ITEM_SCHEMA.field(name), pa.nulls(len(bare), ITEM_SCHEMA.field(name).type))
    save(home, "events", events(type="purchase_completed", price=None))
    save(home, "impressions", SCHEMA.empty_table())
    save(home, "items", bare.select(ITEM_SCHEMA.names))
    absent = ["price_log", "price_ratio", "shown_pages_ago", "shown_position", "user_days_away"]
    training().assign(**dict.fromkeys(absent, np.float32("nan"))).to_parquet(
        home / "data" / "features" / "ranker_training.parquet"
    )
    assert cli.run(["validate", "raw"]) == 0
    told = "impressions, views, carts, prices, categories, known shoppers, returning shoppers"
    assert f"not expected, as the shop has none: {told}" in capsys.readouterr().out
    assert validate("training", capsys) == (0, [])

    rows = items().to_pylist()
    rows = [row | {"price": None} for row in rows[:10]] + rows[10:]
    save(home, "items", pa.Table.from_pylist(rows, ITEM_SCHEMA))
    code, lines = validate("raw", capsys)
    assert (code, lines) == (1, ["items.price: 10 of 20 rows (50.00%) are null, at most 20.00% may be"])


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("purchases", "has no purchases, which shops.small.expects names"),
        ("kittens", "shops.small.expects: 'kittens' is unknown; allowed: impressions, views"),
    ],
)
def test_what_the_shop_says_it_has_must_be_there(
    home: Path, capsys: pytest.CaptureFixture[str], word: str, told: str
) -> None:
    shop = yaml.safe_load((home / "data" / "shop.yaml").read_text())
    (home / "data" / "shop.yaml").write_text(yaml.safe_dump(shop | {"expects": [word]}))
    save(home, "events", events(type="product_viewed"))
    assert cli.run(["validate", "raw"]) == 1
    assert told in capsys.readouterr().err


def test_a_training_set_without_a_row_is_told_and_passes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training()[:0].to_parquet(home / "data" / "features" / "ranker_training.parquet")
    assert cli.run(["validate", "training"]) == 0
    assert "no row: there is nothing to learn an order from" in capsys.readouterr().out


def test_a_sample_is_the_same_for_the_same_seed_and_keeps_the_order(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(10_000)}), tmp_path / "t.parquet", row_group_size=999)
    first, total = read(tmp_path / "t.parquet", 500, np.random.default_rng(7))
    again, _ = read(tmp_path / "t.parquet", 500, np.random.default_rng(7))
    other, _ = read(tmp_path / "t.parquet", 500, np.random.default_rng(8))
    assert total == 10_000 and len(first) == 500
    assert first.equals(again) and not first.equals(other)
    assert first["n"].is_monotonic_increasing and first["n"].is_unique
    assert abs(first["n"].mean() - 5_000) < 400


def test_a_file_that_is_not_there_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items.parquet: cannot be read: .*endcap ingest"):
        read(tmp_path / "items.parquet")


def test_usage_other_than_raw_or_training_exits_2() -> None:
    assert cli.run(["validate", "everything"]) == 2
