"""Events of the running shop that were written down: data/logs/events/<first>-<last>.parquet.

The numbers are arrivals (ms): a file holds what came after `first`, up to `last`. One that begins where a
longer one begins is what a killed writer left, and counts for nothing.
"""

from pathlib import Path


def files(folder: Path) -> list[Path]:
    """Those that count, in the order of arrival."""
    longest: dict[int, Path] = {}
    for file in sorted(folder.glob("*.parquet"), key=span):
        longest[span(file)[0]] = file
    return list(longest.values())


def span(file: Path) -> tuple[int, int]:
    """Arrivals (ms) between which a file holds all that came.

    >>> span(Path("1767225600000-1767229200000.parquet"))
    (1767225600000, 1767229200000)
    """
    first, last = file.stem.split("-")
    return int(first), int(last)
