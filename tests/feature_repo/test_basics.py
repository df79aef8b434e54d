"""What the whole house stands on: time, places, files, and standing in another project folder."""

from __future__ import annotations

import doctest
import os
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import clock, files, ports
from feature_repo.errors import DataError
from feature_repo.files import whole, write_parquet
from feature_repo.params import home, root
from feature_repo.places import EVENTS, at, existing
from feature_repo.ports import redis_url

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = pa.schema([("n", pa.int64())])


@pytest.mark.parametrize("module", [clock, files, ports], ids=lambda module: module.__name__)
def test_docstring_examples_hold(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert (found.failed, found.attempted > 0) == (0, True)


@given(st.integers(0, 4_102_444_800_000_000))
def test_an_instant_comes_back_from_its_datetime_and_from_its_text(us: int) -> None:
    moment = clock.instant(us)
    assert clock.micros(moment) == clock.micros(moment.isoformat()) == us
    assert clock.instant(np.int64(us)) == moment  # type: ignore[arg-type]


def test_an_instant_without_a_zone_is_utc() -> None:
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert clock.micros(east) == clock.micros(datetime(2026, 1, 1)) == clock.micros("2026-01-01")
    with pytest.raises(ValueError, match="yesterday"):
        clock.micros("yesterday")
    assert datetime(1970, 1, 1, tzinfo=UTC) == clock.EPOCH


def test_what_fails_in_the_middle_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    with whole(path) as draft:
        draft.write_text("one")
    with pytest.raises(KeyError), whole(path) as draft:
        draft.write_text("half")
        assert path.read_text() == "one"
        raise KeyError
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [("file.txt", "one")]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    for name, fails in (("lost", True), ("kept", False)):
        try:
            with whole(tmp_path / name) as draft:
                draft.mkdir()
                (draft / "a").write_text(name)
                assert not (tmp_path / name).exists()
                if fails:
                    raise KeyError
        except KeyError:
            pass
    assert [folder.name for folder in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "a").read_text() == "kept"


def test_tables_are_counted_and_no_file_is_left_of_those_that_end_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    assert write_parquet(path, SCHEMA, (pa.table({"n": [n, n]}) for n in range(3))) == 6
    before = path.read_bytes()
    assert pq.read_table(path)["n"].to_pylist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ZeroDivisionError):
        write_parquet(path, SCHEMA, (pa.table({"n": [1 // n]}) for n in (1, 0)))
    assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], before)


def test_a_missing_or_truncated_file_is_told_relative_with_the_job_that_makes_it(tmp_path: Path) -> None:
    with home(tmp_path):
        with pytest.raises(DataError) as refused:
            existing(EVENTS, "ingest")
        assert str(refused.value) == "data/raw/events.parquet: is missing. Next: run `endcap ingest`."
        with whole(at(EVENTS)) as draft:
            draft.write_bytes(b"PAR1 and no more")
        with pytest.raises(DataError) as refused:
            existing(EVENTS, "ingest")
        assert str(refused.value).startswith(
            "data/raw/events.parquet: is truncated or no parquet file. Next:"
        )
        with whole(at(EVENTS)) as draft:
            draft.write_bytes(b"PAR1 whole PAR1")
        assert existing(EVENTS, "ingest") == existing(at(EVENTS), "ingest") == tmp_path / EVENTS


def test_another_project_folder_is_left_as_the_first_was(tmp_path: Path) -> None:
    before = dict(os.environ)
    with pytest.raises(KeyError), home(tmp_path, ENDCAP_REDIS_PORT="7000"):
        assert root() == tmp_path
        os.environ["REDIS_URL"] = "redis://elsewhere"
        raise KeyError
    assert dict(os.environ) == before


def test_redis_is_where_the_environment_or_its_port_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))  # whose Redis has no password yet
    monkeypatch.setenv("ENDCAP_REDIS_PORT", "7001")
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert redis_url() == "redis://127.0.0.1:7001/0"
    monkeypatch.setenv("REDIS_URL", "redis://cache:6379/2")
    assert redis_url() == "redis://cache:6379/2"
