"""What an erase has begun and not ended: run/<shop>/erasing/, which a killed one leaves for the next.

<tombstone of the shopper>.txt   tombstones of shopper and visits: rows that told whose they are may be gone
files.txt                        files that dvc.lock still has as they were
"""

from collections.abc import Iterable
from pathlib import Path

from feature_repo.files import whole
from feature_repo.params import shop


def _folder() -> Path:
    return shop().run_dir() / "erasing"


def begin(of: str, tombstones: Iterable[str]) -> set[str]:
    """Note them; all that were noted for `of`, also by one that did not end."""
    file = _folder() / f"{of}.txt"
    found = set(tombstones) | (set(file.read_text().split()) if file.exists() else set())
    with whole(file) as draft:
        draft.write_text("\n".join(sorted(found)))
    return found


def end(of: str) -> None:
    (_folder() / f"{of}.txt").unlink(missing_ok=True)


def about_to_change(place: str) -> None:
    """Before the file is written anew."""
    _folder().mkdir(parents=True, exist_ok=True)
    with (_folder() / "files.txt").open("a") as file:
        file.write(f"{place}\n")


def changed() -> list[str]:
    """Files of which DVC does not know yet."""
    file = _folder() / "files.txt"
    return sorted(set(file.read_text().splitlines())) if file.exists() else []


def committed() -> None:
    (_folder() / "files.txt").unlink(missing_ok=True)
