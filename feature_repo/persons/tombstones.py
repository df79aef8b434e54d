"""Who was erased, as tombstones: what an export, a late event or a restored backup brings again is known.

run/<shop>/erased.txt       beside the key                   a line each, 32 hex digits
data/privacy/<shop>.txt     with the data, as it travels
endcap:erased               in Redis, a set: read by every worker once a second

One that stands in any of the three stands in all from the next `endcap up` or erase on: a backup of one
brings nobody back.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from feature_repo.files import whole
from feature_repo.params import shop
from feature_repo.persons.pseudonyms import Persons
from feature_repo.places import DATA, at

ERASED = "endcap:erased"


def files() -> tuple[Path, Path]:
    """Of the active shop."""
    active = shop()
    return active.run_dir() / "erased.txt", at(DATA / "privacy" / f"{active.name}.txt")


def read() -> frozenset[str]:
    """Tombstones of the two files."""
    return frozenset(line for file in files() if file.exists() for line in file.read_text().split())


def keep(tombstones: Iterable[str], redis: Any = None) -> frozenset[str]:
    """Add to all that hold them, and bring these to the same; all of them."""
    found = read() | frozenset(tombstones)
    if redis is not None:
        found |= frozenset(one.decode() for one in redis.smembers(ERASED))
    if not found:
        return found
    text = "".join(f"{one}\n" for one in sorted(found))
    for file in files():
        if not file.exists() or file.read_text() != text:
            with whole(file) as draft:
                draft.write_text(text)
    if redis is not None:
        redis.sadd(ERASED, *found)
    return found


async def follow(redis: Any, persons: Persons) -> None:
    """Let `persons` know of those who were erased since."""
    if await redis.scard(ERASED) > len(persons.erased):
        persons.erased = persons.erased | {one.decode() for one in await redis.smembers(ERASED)}
