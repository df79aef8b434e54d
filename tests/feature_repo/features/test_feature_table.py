"""docs/features.md: its tables are those of the code, and its example of a new feature works as it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shops.small import ITEMS, open_home, random_events, write_raw

from feature_repo.assemble.reference import markdown
from feature_repo.assemble.vectorize import COLUMNS, READINGS, check_width
from feature_repo.errors import DefinitionError, ParamsError
from feature_repo.features.stored import FOLDS
from pipelines.parity.feature import main as feature

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "features.md").read_text()
CODE = ("feature_repo", "serving", "training", "monitoring", "pipelines")


def test_the_tables_are_current() -> None:
    begin, end = "<!-- begin: `endcap feature --markdown` -->\n\n", "\n\n<!-- end -->"
    made = PAGE[PAGE.index(begin) + len(begin) : PAGE.index(end)]
    assert made == markdown(), "run `endcap feature --markdown` and put its output between the marks"


def test_every_reading_is_made_of_declared_columns_and_every_column_has_unit_and_meaning() -> None:
    stored = {c.name for fold in FOLDS for c in fold.columns} | {"price", "margin", "available_from"}
    stored |= {"category_path", "brand"}
    for group in READINGS.values():
        for reading in group:
            assert set(reading.of) <= stored, reading.column
            assert reading.unit and reading.doc, reading.column
    assert all(c.unit and c.doc for fold in FOLDS for c in fold.columns)
    assert all(len({c.name for c in fold.columns}) == len(fold.columns) for fold in FOLDS)


def test_a_column_too_many_or_twice_is_refused_with_the_next_step() -> None:
    with pytest.raises(DefinitionError, match=r"29 are declared; allowed: exactly 28. Next: take `column=`"):
        check_width([*COLUMNS, "one_more"])
    with pytest.raises(DefinitionError, match=r"28 are declared, \['device'\] twice"):
        check_width([*COLUMNS[:-1], "device"])


def changed(code: Path, removed: bool) -> None:
    """Apply the page's diff to a copy of the code; without `removed`, only the lines that it adds."""
    diff = re.search(r"^```diff\n(.*?)^```", PAGE, re.S | re.M)
    assert diff
    for name in CODE:
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    lines = diff.group(1).splitlines()
    target = code / lines[1].removeprefix("+++ b/")
    old = [line[1:] for line in lines[2:] if line.startswith("-")]
    new = [line[1:] for line in lines[2:] if line.startswith("+")]
    text = target.read_text()
    assert text.count("\n".join(old)) == 1, "the example must fit the code"
    target.write_text(text.replace("\n".join(old), "\n".join(new if removed else [*old, new[-1]])))


def endcap(code: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *shlex.split(command)],
        env={**os.environ, "PYTHONPATH": str(code), "COLUMNS": "140"},
        cwd=code,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_feature_added_in_one_place_is_seen_in_training_and_in_serving(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, code = tmp_path / "home", tmp_path / "code"
    home.mkdir()
    open_home(home, monkeypatch)
    monkeypatch.setenv("REDIS_URL", redis_url)
    write_raw(home, random_events(seed=8, count=400))
    changed(code, removed=True)
    for command in ("features", "materialize --fresh"):
        done = endcap(code, command)
        assert done.returncode == 0, done.stderr
    shown = endcap(code, f"feature removes_7d '{ITEMS[3]}'")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    rows = [line for line in shown.stdout.splitlines() if line.startswith("│ removes_7d")]
    assert len(rows) == 2  # the stored count, and what the ranker reads of it
    for row in rows:
        _, _, offline, online, _ = (part.strip() for part in row.split("│"))
        assert offline == online and float(offline) > 0
    table = endcap(code, "feature --markdown").stdout
    assert "| `removes_7d` | item | events | `removes_7d`, `at` | 0 | removals |" in table


def test_a_feature_without_room_stops_everything_at_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_home(tmp_path, monkeypatch)
    changed(tmp_path / "code", removed=False)
    done = endcap(tmp_path / "code", "feature")
    assert done.returncode == 1
    assert "endcap: ranker columns: 29 are declared; allowed: exactly 28" in done.stderr


def test_every_column_of_the_ranker_can_be_looked_up_and_one_of_a_request_has_no_entity(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for column in COLUMNS:
        assert feature(column) == 0
        assert re.search(rf"ranker +{column} ", capsys.readouterr().out), column
    with pytest.raises(
        ParamsError, match=r"entity: 'mug' is not allowed for category_affinity, .* `endcap re"
    ):
        feature("category_affinity", "mug")
    with pytest.raises(ParamsError, match=r"feature: 'colour' is not declared; .*, category_affinity, "):
        feature("colour")
