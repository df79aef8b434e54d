"""What a stage took: noted when DVC started it, told in the order of the pipeline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.errors import DataError
from pipelines import cli
from pipelines.local import stages

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_a_job_that_dvc_started_notes_what_it_took(home: Path) -> None:
    env = {**os.environ, "DVC_STAGE": "dvc.yaml:simulate"}
    command = [sys.executable, "-m", "pipelines", "simulate", "--size", "tiny"]
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, timeout=300)
    (took,) = stages.newest()
    assert took.stage == "simulate"
    assert took.seconds > 0.2 and took.cpu_seconds > 0.2 and took.peak_mb > 50


def test_a_job_that_a_person_started_or_that_failed_notes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="holds no stage"):
        stages.newest()
    monkeypatch.setenv("DVC_STAGE", "gate")
    assert cli.run(["gate"]) == 1  # there is no evaluation
    assert "DVC_STAGE" not in os.environ  # nor does a process that the job starts
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert cli.run(["stages"]) == 1


def test_the_newest_run_of_each_stage_is_told_in_the_order_of_the_pipeline(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage, seconds in (("ranker", 5.0), ("ingest", 2.0), ("ranker", 4.0), ("gone", 9.0)):
        stages.note(stage, seconds)
    assert len((home / "run/simulated/stages.jsonl").read_text().splitlines()) == 3  # it does not grow
    assert cli.run(["stages", "--show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["ingest", "2.0"], ["ranker", "4.0"], ["all", "6.0"]]
    assert max(map(len, lines)) <= 80
    report = json.loads((home / stages.REPORT).read_text())
    assert [(one["stage"], one["seconds"]) for one in report["stages"]] == [("ingest", 2.0), ("ranker", 4.0)]
    assert report["seconds"] == 6.0 and report["shop"] == "simulated"


def test_the_report_is_the_output_of_no_stage() -> None:
    assert str(stages.REPORT) not in (ROOT / "dvc.yaml").read_text()
