"""What `endcap demo` tells of itself."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.params import load, root
from feature_repo.places import EVENTS, at
from pipelines.demo.demo import haste
from pipelines.simulate.shopper import Manners

NEWEST = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_how_much_faster_shoppers_come_is_told_by_the_visits_of_the_last_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = root() / "params.yaml"
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    shutil.copyfile(params, tmp_path / "params.yaml")
    visits = [(f"v{day}", NEWEST - timedelta(days=day)) for day in range(14) for _ in range(3)]
    at(EVENTS).parent.mkdir(parents=True)
    columns = [list(column) for column in zip(*visits, strict=True)]
    pq.write_table(pa.table(columns, names=["session_id", "event_ts"]), at(EVENTS))
    a_day = 86_400 / load("shoppers", Manners).seconds_between
    assert haste() == pytest.approx(a_day)  # one visit a day, whatever it held
