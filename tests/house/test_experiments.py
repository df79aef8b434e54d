"""A data scientist's day as README tells it: its commands are run, by the real DVC, over our dvc.yaml.

The jobs of stages are stand-ins (tests/shops/stand_in.py), which leave at once what a stage must leave; the
gate and `endcap compare` are the real ones.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import yaml
from shops.checkout import IN_GIT, REAL, ROOT, check_out, commit, run

STAND_IN = ROOT / "tests/shops/stand_in.py"
BEGIN, END = "**Data scientist.**", "A feature is one line"


def commands() -> list[str]:
    """The console commands of README's paragraph for data scientists."""
    text = (ROOT / "README.md").read_text()
    part = text[text.index(BEGIN) : text.index(END)]
    return [line[2:] for line in part.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has of Endcap, with an `endcap` of stand-ins."""
    stand_in = f"{REAL.removesuffix('-m pipelines')}{STAND_IN}"
    program = f'[ "$1" = compare ] && exec {REAL} "$@"\nexec {stand_in} "$@"'
    found = check_out(tmp_path_factory.mktemp("day"), program)
    commit(found)
    return found


def test_the_day_of_a_data_scientist_as_readme_tells_it(clone: Path) -> None:
    repro, metrics, committed, trial, plots, show, compare = commands()
    run(clone, repro)
    told = run(clone, metrics)  # the commit's numbers, which came with the clone, against the workspace's
    assert "data/reports/headline.json" in told and "ndcg_at_12" in told
    assert max(map(len, told.splitlines())) <= 80
    changed = [line[3:] for line in run(clone, "git status --short").splitlines()]
    assert "dvc.lock" in changed and {*changed} <= {"dvc.lock", *IN_GIT}
    run(clone, committed)
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
