"""A Redis that is not there, or goes away: every job says so in one line and ends with 1."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.online.connection import client
from feature_repo.places import RANKER_TRAINING
from pipelines import cli
from pipelines.stream import dead

NOWHERE = "redis://user:secret@127.0.0.1:1/0"
TOLD = "endcap: REDIS_URL: redis://127.0.0.1:1/0 does not answer. Next: start it with `endcap up`."
JOBS = (
    "dead",
    "drift",
    "feature user_days_away somebody",
    "feedback",
    "materialize --as-of 2026-02-23",
    "promote",
    "replay",
    "restore",
    "rollback",
    "rollout start",
    "rollout status",
    "rollout advance",
    "rollout stop",
    "shadow start",
    "shadow report",
    "shadow stop",
    "interleave start",
    "interleave status",
    "interleave stop",
    "served",
    "stream --from beginning",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(Path(__file__).resolve().parents[2] / "params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", NOWHERE)
    (tmp_path / RANKER_TRAINING).parent.mkdir(parents=True)
    pd.DataFrame(np.zeros((3, len(COLUMNS))), columns=list(COLUMNS)).to_parquet(tmp_path / RANKER_TRAINING)
    return tmp_path


@pytest.mark.parametrize("job", JOBS)
def test_a_job_without_redis_ends_with_one_line_that_keeps_the_password(
    job: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(job.split()) == 1
    assert capsys.readouterr().err.strip() == TOLD


def test_a_redis_that_goes_away_in_the_middle_of_a_job_is_one_line_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dead, "connect", client)  # as if it had answered when it was opened
    assert cli.run(["dead"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(TOLD)
    assert "Connection refused" in line


def test_a_canary_is_planned_without_redis_from_what_params_assume(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["rollout", "plan", "--runs", "2"]) == 0
    assert "what was not given is assumed (params.yaml)" in capsys.readouterr().out


def test_a_bug_is_one_line_that_names_the_log_with_its_traceback(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(dead, "connect", broken)
    assert cli.run(["dead"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    log = home / "run/simulated/logs/dead.log"
    assert line == (
        f"endcap: dead: KeyError: 'a bug'. This is a bug of Endcap; {log} holds the traceback, "
        "please report it"
    )
    assert "Traceback" in log.read_text() and "KeyError: 'a bug'" in log.read_text()
