"""A data scientist's day as README tells it: its commands are run, by the real DVC, over our dvc.yaml.

The jobs of stages are stand-ins (tests/shops/stand_in.py), which leave at once what a stage must leave; the
gate and `endcap compare` are the real ones.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "tests/shops/stand_in.py"
PACKAGES = ("feature_repo", "training", "serving", "monitoring", "pipelines")
IN_GIT = tuple(f"data/reports/{name}" for name in ("headline.json", "passed.json", "evaluate.csv"))
FILES = ("params.yaml", "dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", *IN_GIT)
BEGIN, END = "**Data scientist.**", "A feature is one line"


def commands() -> list[str]:
    """The console commands of README's paragraph for data scientists."""
    text = (ROOT / "README.md").read_text()
    part = text[text.index(BEGIN) : text.index(END)]
    return [line[2:] for line in part.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has of Endcap, committed to a repository of its own, and an `endcap` of stand-ins."""
    folder = tmp_path_factory.mktemp("day")
    clone, program = folder / "clone", folder / "bin/endcap"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, clone / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, "data/README.md", "data/shop.yaml"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    for log in ("events", "items"):  # git keeps them, empty
        (clone / "data/logs" / log).mkdir(parents=True)
        (clone / "data/logs" / log / ".gitignore").write_text("*\n!.gitignore\n")
    program.parent.mkdir()
    real, stand_in = f"{sys.executable} -m pipelines", f"{sys.executable} {STAND_IN}"
    program.write_text(f'#!/bin/sh\n[ "$1" = compare ] && exec {real} "$@"\nexec {stand_in} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    run(clone, "git init -q -b master && git add -A && git commit -qm 'As cloned'")
    return clone


def run(clone: Path, command: str) -> str:
    """Its output. DVC and git see this repository alone."""
    own = {"PATH": f"{clone.parent / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    own |= {"PYTHONPATH": str(clone), "HOME": str(clone.parent), "COLUMNS": "80", "DVC_NO_ANALYTICS": "1"}
    own |= {f"GIT_{who}_{what}": "clerk" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    foreign = ("ENDCAP", "GIT_", "DVC")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | own
    options = {"cwd": clone, "env": env, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, shell=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_the_day_of_a_data_scientist_as_readme_tells_it(clone: Path) -> None:
    repro, metrics, commit, trial, plots, show, compare = commands()
    run(clone, repro)
    told = run(clone, metrics)  # the commit's numbers, which came with the clone, against the workspace's
    assert "data/reports/headline.json" in told and "ndcg_at_12" in told
    assert max(map(len, told.splitlines())) <= 80
    changed = [line[3:] for line in run(clone, "git status --short").splitlines()]
    assert "dvc.lock" in changed and {*changed} <= {"dvc.lock", *IN_GIT}
    run(clone, commit)
    assert run(clone, "git status --short") == ""
    run(clone, trial)
    assert "failed" not in run(clone, plots)
    drawn = {path.name for path in (clone / "dvc_plots/static").iterdir()}
    assert {f"{revision}_data_reports_evaluate.png" for revision in ("HEAD", "decay")} <= drawn
    rows = [line for line in run(clone, show).splitlines() if line.strip() and "──────" not in line]
    assert max(map(len, rows)) <= 80
    header, _, base, tried = rows
    assert header.split() == ["Experiment", "ndcg_at_12", "retrieve.covisit_decay"]
    assert base.split()[0] == "master" and "!" not in base and "[decay]" in tried
    assert (base.split()[-1], tried.split()[-1]) == ("0.6", "0.4")
    told = run(clone, compare)
    assert "better" in told and "retrieve.covisit_decay" in told and "400 queries are in both" in told
    assert max(map(len, told.splitlines())) <= 80


def test_a_trial_whose_gate_fails_says_so_in_the_metrics(clone: Path) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["gate"]["min_coverage"] = 0.99
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(AssertionError, match="failed to reproduce 'gate'"):
        run(clone, "dvc repro gate")
    rows = [line.split() for line in run(clone, "dvc metrics diff").splitlines()]
    assert [row[2:4] for row in rows if "gate_passed" in row] == [["1", "0"]]


def test_every_metric_of_dvc_is_flat_and_in_git() -> None:
    """A number of a report is none: there were columns for hundreds of them."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    found = [entry for stage in stages.values() for entry in stage.get("do", stage).get("metrics", [])]
    assert found and all(options == {"cache": False} for entry in found for options in entry.values())
    files = [name for entry in found for name in entry]
    numbers = [orjson.loads((ROOT / name).read_bytes()) for name in files]
    assert sum(len(values) for values in numbers) <= 12
    assert not [value for values in numbers for value in values.values() if isinstance(value, dict | list)]
    ignored = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("!")]
    assert {f"!/{name}" for name in IN_GIT} <= {*ignored} and {*files} <= {*IN_GIT}
