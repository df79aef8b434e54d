"""`endcap retain`: files that are older than `privacy.retention` allows are removed.

What Redis holds ends by itself, by counts and lifetimes of its own; docs/privacy.md has the table of both. A
file's age is that of its last writing.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from feature_repo.clock import DAY_S
from feature_repo.params import load, shop
from feature_repo.persons.privacy import Privacy, Retention
from feature_repo.places import EMAIL, FEEDBACK, SERVED_LOG, at


def main() -> None:
    """Remove files of persons that are older than params.yaml allows; run it daily."""
    kept = load("privacy", Privacy).retention
    gone = list(remove(kept, time.time()))
    for name, path, days in gone:
        most = f" and receipts_kept {kept.receipts_kept}" if name == "receipts" else ""
        print(f"{path}: {days:.0f} days old, privacy.retention.{name} is {getattr(kept, name)}{most}")
    print(f"{len(gone)} files removed")


def places() -> dict[str, Path]:
    """Field of Retention -> its folder."""
    return {
        "served": at(SERVED_LOG),
        "email": at(EMAIL),
        "feedback": at(FEEDBACK),
        "logs": shop().run_dir() / "logs",
        "receipts": shop().run_dir() / "receipts",
    }


def remove(kept: Retention, now_s: float) -> Iterator[tuple[str, Path, float]]:
    """(field, file, its age in days) of each that was removed: what is too old, and of receipts too many."""
    for name, folder in places().items():
        files = sorted(path for path in folder.glob("*") if path.is_file())
        written = {path: path.stat().st_mtime for path in files}
        newest = sorted(files, key=lambda path: -written[path])
        beyond = set(newest[kept.receipts_kept :]) if name == "receipts" else set()
        for path in files:
            days = (now_s - written[path]) / DAY_S
            if days > getattr(kept, name) or path in beyond:
                path.unlink()
                yield name, path, days
