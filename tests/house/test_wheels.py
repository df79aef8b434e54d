"""What is installed from a wheel is what stands in the tree: scripts, pages and styles as well."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENT = "clients/python/"
PACKAGES = ("feature_repo/", "training/", "serving/", "monitoring/", "pipelines/")


def tracked(*folders: str) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if ended.returncode:
        pytest.skip(f"not a git repository: {ended.stderr}")
    return [name for name in ended.stdout.splitlines() if (ROOT / name).is_file()]


def installed(folder: Path, names: list[str], below: str = "") -> set[str]:
    """The files that a wheel of these puts into a folder."""
    for name in names:
        target = folder / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    pip, quiet = (sys.executable, "-m", "pip"), ("--quiet", "--no-deps", "--disable-pip-version-check")
    build = (*pip, "wheel", *quiet, "--no-build-isolation", "-w", folder / "wheels", folder / "tree" / below)
    subprocess.run(build, check=True, timeout=600)
    (wheel,) = (folder / "wheels").glob("*.whl")
    subprocess.run((*pip, "install", *quiet, "--target", folder / "site", wheel), check=True, timeout=300)
    found = (path for path in (folder / "site").rglob("*") if path.is_file())
    return {path.relative_to(folder / "site").as_posix() for path in found}


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    names = tracked(*PACKAGES)
    found = installed(tmp_path, [*names, "pyproject.toml", "README.md", "LICENSE"])
    assert set(names) - found == set()


def test_the_wheel_of_the_python_client_holds_it_whole_and_answers_an_import(tmp_path: Path) -> None:
    names = tracked(CLIENT)
    found = installed(tmp_path, names, CLIENT)
    told = {name.removeprefix(CLIENT) for name in names} - {"pyproject.toml"}
    assert told - found == set() and "endcap_client/py.typed" in found
    code = "import endcap_client; print(endcap_client.__file__)"
    env = {"PYTHONPATH": str(tmp_path / "site")}
    ended = subprocess.run(
        (sys.executable, "-c", code), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert ended.stdout.startswith(str(tmp_path / "site")), ended.stderr
