"""What git has of Endcap, copied and committed to a repository of its own, as somebody who cloned it has."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("feature_repo", "training", "serving", "monitoring", "pipelines")
IN_GIT = tuple(f"data/reports/{name}" for name in ("headline.json", "passed.json", "evaluate.csv"))
FILES = ("params.yaml", "dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", *IN_GIT)
REAL = f"{sys.executable} -m pipelines"


def check_out(folder: Path, program: str = f'exec {REAL} "$@"') -> Path:
    """folder/clone, with `endcap` as the shell script `program` on its PATH; not committed yet."""
    clone, endcap = folder / "clone", folder / "bin/endcap"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, clone / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, "data/README.md", "data/shop.yaml"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    for log in ("events", "items"):  # git keeps them, empty
        (clone / "data/logs" / log).mkdir(parents=True)
        (clone / "data/logs" / log / ".gitignore").write_text("*\n!.gitignore\n")
    endcap.parent.mkdir()
    endcap.write_text(f"#!/bin/sh\n{program}\n")
    endcap.chmod(endcap.stat().st_mode | stat.S_IXUSR)
    return clone


def commit(clone: Path) -> None:
    """All of it, as the first commit."""
    run(clone, "git init -q -b master && git add -A && git commit -qm 'As cloned'")


def run(
    clone: Path, command: str, timeout: float = 300, allowed: tuple[int, ...] = (0,), **other: str
) -> str:
    """Its output. DVC and git see this repository alone; `other` is added to the environment."""
    own = {"PATH": f"{clone.parent / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    own |= {"PYTHONPATH": str(clone), "HOME": str(clone.parent), "COLUMNS": "80", "DVC_NO_ANALYTICS": "1"}
    own |= {f"GIT_{who}_{what}": "clerk" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    foreign = ("ENDCAP", "GIT_", "DVC", "REDIS_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | own | other
    options = {"cwd": clone, "env": env, "capture_output": True, "text": True, "timeout": timeout}
    done = subprocess.run(command, shell=True, check=False, **options)
    assert done.returncode in allowed, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr
