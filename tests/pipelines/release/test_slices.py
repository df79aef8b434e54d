"""The backfill in slices: the same rows and bytes for any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shops.small import open_home, random_events, write_raw

from feature_repo.features.stored import FOLDS
from feature_repo.offline.backfill import slices
from feature_repo.offline.build import main as features
from feature_repo.offline.history import of_fold, raw_events
from feature_repo.places import feature_file

EVENTS = random_events(seed=5, count=700)
Run = Callable[..., dict[str, pa.Table]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    home = open_home(tmp_path, monkeypatch)
    write_raw(home, EVENTS)
    params = (home / "params.yaml").read_text()

    def stored(workers: int, slice_events: int) -> dict[str, pa.Table]:
        text = params.replace("  workers: 2 ", f"  workers: {workers} ", 1)
        text = text.replace("  slice_events: 500000", f"  slice_events: {slice_events}")
        (home / "params.yaml").write_text(text)
        features()
        return {fold.name: pq.read_table(feature_file(fold.name)) for fold in FOLDS}

    return stored


def digests() -> list[str]:
    return [hashlib.sha256(feature_file(fold.name).read_bytes()).hexdigest() for fold in FOLDS]


def test_the_files_are_the_same_for_one_process_and_for_several(run: Run) -> None:
    run(workers=1, slice_events=150)
    alone = digests()
    run(workers=2, slice_events=150)
    assert digests() == alone


@pytest.mark.parametrize("size", [1, 60])
def test_the_rows_do_not_depend_on_how_the_keys_are_cut(run: Run, size: int) -> None:
    assert run(workers=1, slice_events=size) == run(workers=1, slice_events=500_000)


def test_slices_hold_every_key_once_and_about_as_many_events_as_asked(run: Run) -> None:
    run(workers=1, slice_events=500_000)
    with raw_events(feature_file("x").parents[1] / "raw", "1GB") as events:
        for fold in FOLDS:
            found = slices(events, fold, 100)
            assert found[0].low is None and found[-1].high is None
            assert [part.low for part in found[1:]] == [part.high for part in found[:-1]]
            of_key = f"SELECT count(*) AS n FROM events WHERE {of_fold(fold)} GROUP BY {fold.key}"
            total, most = events.execute(f"SELECT sum(n)::INT, max(n) FROM ({of_key})").fetchall()[0]
            assert total / (100 + most) <= len(found) <= total / 100 + 1
