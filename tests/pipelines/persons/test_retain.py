"""`endcap retain` removes what is older than params.yaml allows, and receipts beyond their count."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from feature_repo.params import load
from feature_repo.persons.privacy import Privacy
from pipelines.persons import retain


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(Path(__file__).parents[3] / "params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def test_what_is_older_than_allowed_is_removed_and_nothing_else(home: Path) -> None:
    kept = load("privacy", Privacy).retention
    old, new = (home / f"data/email/{name}.parquet" for name in ("old", "new"))
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(b"")
    now = new.stat().st_mtime
    os.utime(old, (now - (kept.email + 1) * 86_400,) * 2)
    assert [path for _, path, _ in retain.remove(kept, now)] == [old]
    assert new.exists() and not old.exists()


def test_receipts_are_kept_for_years_and_the_newest_of_them_at_most(home: Path) -> None:
    kept = replace(load("privacy", Privacy).retention, receipts_kept=2)
    folder = retain.places()["receipts"]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n}.json" for n in range(5)]
    now = 2_000_000_000.0
    for path, days in zip(files, (kept.receipts + 1, kept.receipts - 1, 3, 2, 2), strict=True):
        path.write_text("{}")
        os.utime(path, (now - days * 86_400,) * 2)
    assert [path for name, path, _ in retain.remove(kept, now) if name == "receipts"] == files[:3]
    assert [path.exists() for path in files] == [False, False, False, True, True]
