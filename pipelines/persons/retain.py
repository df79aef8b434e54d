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
        print(f"{path}: {days:.0f} days old, privacy.retention.{name} is {getattr(kept, name)}")
    print(f"{len(gone)} files removed")


def places() -> dict[str, Path]:
    """Field of Retention -> its folder."""
    return {
        "served": at(SERVED_LOG),
        "email": at(EMAIL),
        "feedback": at(FEEDBACK),
        "logs": shop().run_dir() / "logs",
    }


def remove(kept: Retention, now_s: float) -> Iterator[tuple[str, Path, float]]:
    """(field, file, its age in days) of each that was removed."""
    for name, folder in places().items():
        for path in sorted(folder.glob("*")):
            days = (now_s - path.stat().st_mtime) / DAY_S
            if path.is_file() and days > getattr(kept, name):
                path.unlink()
                yield name, path, days
