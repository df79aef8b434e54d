"""dvc.yaml against the code: a stage re-runs when, and only when, something that it uses has changed."""

from __future__ import annotations

import ast
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import cli

ROOT = Path(__file__).resolve().parents[2]
STORE, STORE_YAML = ROOT / "feature_repo/features/store.py", ROOT / "feature_repo/feature_store.yaml"
# Job -> what runs in the processes that it starts, beside its own code.
STARTED = {"replay": ("pipelines/stream/stream.py", "pipelines/local/serve.py", "serving/service.py")}
# Not made by a stage: a live shop writes them; `endcap features` and `endcap ingest` make them, empty.
LIVE = {"data/logs/served", "data/logs/items", "data/logs/events"}
PACKAGES = ("feature_repo", "training", "serving", "monitoring", "pipelines")
# Reached by every job, without influence on any output: units of time, names of places, the way a file is
# replaced, messages, switches, how a picture writes a name, the reading of params.yaml itself (whose sections
# are named one by one), and MLflow's log of a run.
PLUMBING = {
    "feature_repo/clock.py",
    "feature_repo/errors.py",
    "feature_repo/files.py",
    "feature_repo/params.py",
    "feature_repo/picture.py",
    "feature_repo/places.py",
    "feature_repo/ports.py",
    "feature_repo/quiet.py",
    "feature_repo/terminal.py",
    "training/tracking.py",
}


def stages() -> dict[str, dict[str, Any]]:
    """Stage name -> its definition; of a foreach stage, what it does for each."""
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in found.items()}


def job(stage: dict[str, Any]) -> str:
    command = shlex.split(stage["cmd"])
    assert command[0] == "endcap"
    return command[1]


@cache
def names(module: Path) -> frozenset[Path]:
    """Our modules that `module` imports, wherever in the file; the store's yaml names one more."""
    wanted: set[str] = set()
    if module == STORE:
        wanted.add(yaml.safe_load(STORE_YAML.read_text())["offline_store"]["type"].rpartition(".")[0])
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            wanted |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = {ROOT / (name.replace(".", "/") + ".py") for name in wanted if name.split(".")[0] in PACKAGES}
    return frozenset(path for path in paths if path.exists())


def closure(module: Path) -> set[Path]:
    """`module` and all of ours that it imports, directly or not."""
    found, todo = set(), [module]
    while todo:
        if (path := todo.pop()) not in found:
            found.add(path)
            todo += names(path)
    return found


def sections(modules: set[Path]) -> set[str]:
    """Sections of params.yaml that these modules read: every load("name", ...)."""
    return {
        node.args[0].value
        for module in modules
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "load"
        and len(node.args) == 2
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def code(stage: dict[str, Any]) -> set[Path]:
    """What the stage's job uses, and what the processes use that it starts."""
    module = f"{cli.places()[job(stage)].split(':')[0].replace('.', '/')}.py"
    return set().union(*(closure(ROOT / name) for name in (module, *STARTED.get(job(stage), ()))))


def lies_under(path: str, dep: str) -> bool:
    return path == dep or path.startswith(f"{dep}/")


@pytest.mark.parametrize("name", stages())
def test_a_stage_names_the_rooms_that_it_uses_and_no_other(name: str) -> None:
    """A room beneath is named as a folder, the job's own room file by file where other jobs live in it."""
    stage = stages()[name]
    used = {str(p.relative_to(ROOT)) for p in code(stage)} - PLUMBING
    named = {dep for dep in stage["deps"] if dep.split("/")[0] in PACKAGES and not dep.endswith(".yaml")}
    assert not {path for path in used if not any(lies_under(path, dep) for dep in named)}, "add to deps"
    assert not {dep for dep in named if not any(lies_under(path, dep) for path in used)}, "remove from deps"


def test_the_list_of_stages_can_be_read_in_one_go() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 330


@pytest.mark.parametrize("name", stages())
def test_a_stage_that_opens_the_feature_store_names_its_settings(name: str) -> None:
    stage = stages()[name]
    assert ("feature_repo/feature_store.yaml" in stage["deps"]) == (STORE in code(stage))


@pytest.mark.parametrize("name", stages())
def test_a_stage_names_every_section_of_params_that_its_code_reads(name: str) -> None:
    stage = stages()[name]
    named = {entry.split(".")[0] for entry in stage.get("params", []) if isinstance(entry, str)}
    named -= {
        "shops"
    }  # the shop's own section, which data/shop.yaml repeats: tests/pipelines/ingest/test_shop.py
    elsewhere = {"stack", "cors", "spark"}  # where and to whom, which changes no result
    assert sections(code(stage)) - elsewhere == named


def outputs(kinds: tuple[str, ...] = ("outs", "metrics")) -> set[str]:
    """Every path that a stage makes, those of a foreach stage once per item."""
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {
        (next(iter(out)) if isinstance(out, dict) else out).replace("${item}", item)
        for stage in found.values()
        for item in stage.get("foreach", [""])
        for kind in kinds
        for out in stage.get("do", stage).get(kind, [])
    }


def test_what_a_stage_needs_is_made_by_another() -> None:
    made = outputs()
    for name, stage in stages().items():
        for dep in stage["deps"]:
            if dep.startswith("data/") and "${item}" not in dep and dep not in LIVE:
                assert any(dep == out or dep.startswith(f"{out}/") for out in made), (name, dep)


def test_every_stage_writes_below_data_and_is_a_job() -> None:
    assert all(job(stage) in cli.places() for stage in stages().values())
    assert all(out.startswith("data/") for out in outputs())


def test_dvc_reports_nothing_and_stages_no_file_by_itself() -> None:
    config = (ROOT / ".dvc" / "config").read_text()
    for setting in ("analytics = false", "autostage = false", "check_update = false"):
        assert setting in config
    assert "remote" not in config
