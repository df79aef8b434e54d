"""Features that know the future are caught: the check, on an honest shop and on shops with a planted leak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import yaml
from shops.small import START, open_home, random_events, write_raw

from feature_repo.clock import DAY_US, instant
from feature_repo.errors import DataError
from feature_repo.folds.fold import Fold
from feature_repo.offline import backfill as backfill_job
from feature_repo.offline import build as features_job
from feature_repo.offline.history import Fact, Row, backfill
from feature_repo.params import load
from pipelines.parity.leakage import LeakageParams, known_labels
from pipelines.parity.leakage import main as leakage

EVENTS = random_events(seed=3, count=900)
CUTS = {"rank_from": 0, "valid_from": 5, "test_from": 11}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = open_home(tmp_path, monkeypatch)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    days = {name: instant(START + n * DAY_US).isoformat() for name, n in CUTS.items()}
    params["shops"]["simulated"] |= days
    params["leakage"] |= {"cuts": 2, "sessions": 12, "items": 8, "max_known_labels": 1.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    write_raw(folder, EVENTS)
    return folder


def verdict(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and output of the check, after a backfill."""
    features_job.main()
    code = leakage()
    return code, capsys.readouterr().out


def stamped_earlier(by_us: int) -> Any:
    """A backfill whose rows of visits stand `by_us` too early."""

    def planted(fold: Fold, facts: Iterable[Fact]) -> Iterator[Row]:
        early = by_us if fold.name == "session_context" else 0
        return (row._replace(ts=row.ts - early) for row in backfill(fold, facts))

    return planted


def final_views(fold: Fold, facts: Iterable[Fact]) -> Iterator[Row]:
    """A backfill that writes the last number of views of a visit into all its rows."""
    rows = list(backfill(fold, facts))
    if fold.name != "session_context":
        return iter(rows)
    last = {row.key: row.values["views"] for row in rows}
    return (row._replace(values={**row.values, "views": last[row.key]}) for row in rows)


def whole_period_totals(items: Path) -> pa.Table:
    """A catalogue whose stock is how often the item was bought or seen in all of the data."""
    table = CATALOGUE_ROWS(items)
    count = f"SELECT item_id, count(*) AS n FROM '{items.parent}/events.parquet' GROUP BY item_id"
    totals = dict(duckdb.connect().execute(count).fetchall())
    stock = pa.array([totals.get(item, 0) for item in table["item_id"].to_pylist()], pa.int64())
    return table.set_column(table.column_names.index("stock"), "stock", stock)


CATALOGUE_ROWS = features_job.catalogue_rows


def test_an_honest_shop_passes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = verdict(capsys)
    assert code == 0 and "LEAK" not in told and told.count("none") == 4


def test_items_touched_at_one_instant_are_known_to_the_query_and_no_others(home: Path) -> None:
    params = load("leakage", LeakageParams)
    features_job.main()
    known, asked = known_labels(params)
    assert 0 < known < asked
    write_raw(home, [{**event, "event_ts": event["event_ts"] + 2 * i} for i, event in enumerate(EVENTS)])
    features_job.main()
    known, asked = known_labels(params)
    assert known == 0 < asked


@pytest.mark.parametrize("early", [1, 3_600_000_000], ids=["by a microsecond", "by an hour"])
def test_a_row_visible_before_its_event_is_caught(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], early: int
) -> None:
    monkeypatch.setattr(backfill_job, "backfill", stamped_earlier(early))
    code, told = verdict(capsys)
    assert code == 1 and "LEAK session_context." in told
    assert "LEAK user_history" not in told and "LEAK item_" not in told


def test_future_events_in_a_row_are_caught_by_view_and_column(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backfill_job, "backfill", final_views)
    code, told = verdict(capsys)
    assert code == 1 and told.count("LEAK") == 1
    assert "LEAK session_context.views: 'session" in told and "follows from the events before it" in told


def test_whole_period_totals_in_the_catalogue_are_caught(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(features_job, "catalogue_rows", whole_period_totals)
    code, told = verdict(capsys)
    assert code == 1 and told.count("LEAK") == 1 and "LEAK item_catalogue.stock: 'item" in told


def test_without_features_the_next_step_is_named(home: Path) -> None:
    with pytest.raises(DataError, match="Next: run `endcap features`"):
        leakage()
