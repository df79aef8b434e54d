"""The figures that footprint.py measures: their names, the tables of docs/scale.md, and those read back.

A plan (capacity.py) is made of what `read` finds in the tables, so that it is always that of printed figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Measured = Mapping[str, float]
Row = tuple[str, ...]

QUANTITIES = {  # key -> (one more of what, what is measured); bytes where nothing else is said
    "shopper": ("shopper", "Redis: row `user_history`"),
    "visit": ("visit", "Redis: row `session_context`"),
    "shopper_full": ("shopper", "Redis: the same with every list full"),
    "visit_full": ("visit", "Redis: the same with every list full"),
    "item": ("item", "Redis: catalogue and `item_activity`"),
    "listed": ("item", "Redis: its place in `endcap:items:listed`"),
    "changed": ("item", "Redis: its place in `endcap:items:changed`"),
    "logged": ("event", "Redis: entry of `endcap:events:<p>`"),
    "seen": ("event", "Redis: mark at the door"),
    "done": ("event", "Redis: mark of one of two groups of consumers"),
    "counted_list": ("list", "Redis: what was counted of it"),
    "counted_visit": ("visit", "Redis: what was counted of it in an hour"),
    "counted_client": ("address", "Redis: what was counted of it in an hour"),
    "exposure": ("list", "Redis: entry of `endcap:exposures`"),
    "json": ("event", "the log's text, a record of Kafka"),
    "packed": ("event", "the same by lz4, 50 in a batch"),
    "raw": ("event", "disk: `data/raw`"),
    "rows": ("event", "disk: `data/features`"),
    "private": ("item", "a worker's own: ids, catalogue, counts"),
    "snapshot": ("item", "a worker's own, besides, while a snapshot replaces another"),
    "snapshot_ns": ("item", "CPU of that after one change, ns"),
    "graph": ("item", "shared by the workers of a machine: a graph (HNSW) with its vectors"),
}
FLOWS = {
    "door": ("event", "the door: checked, judged, written"),
    "visitors": ("event", "consumers: rows of shoppers and visits"),
    "items": ("event", "consumers: rows of items"),
    "show": ("list", "the log of what was shown"),
    "read": ("list", "rows of shopper and visit, rates"),
}
COSTS = {
    "cpu": "CPU, us",
    "redis": "Redis' CPU, us",
    "net": "bytes to and from Redis",
    "aof": "bytes to its file",
}
SHAPE = {
    "events_per_list": "events per list",
    "lists_per_visit": "lists per visit",
    "events_per_post": "events per POST",
}


def tables(found: Measured, constant: Measured) -> str:
    """What `read` reads back; `constant` in bytes, the part that does not grow."""
    ones = [
        (f"`{key}`", per, what, f"{found[key]:.0f}", f"{constant[key] / 1e3:.0f}" if key in constant else "")
        for key, (per, what) in QUANTITIES.items()
    ]
    flows = [
        (f"`{key}`", per, what, *(f"{found[f'{key}_{cost}']:.0f}" for cost in COSTS))
        for key, (per, what) in FLOWS.items()
    ]
    shape = [(f"`{key}`", what, f"{found[key]:.2f}") for key, what in SHAPE.items()]
    return "\n\n".join(
        (
            markdown(("key", "one more", "what it takes", "bytes", "constant, kB"), ones),
            markdown(("key", "each", "what it passes", *COSTS.values()), flows),
            markdown(("key", "of the simulated visits", "measured"), shape),
        )
    )


def read(text: str) -> dict[str, float]:
    """The figures of the tables in `text`."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        key = cells[0].strip("`")
        if key in QUANTITIES:
            found[key] = float(cells[3])
        elif key in FLOWS:
            found |= {f"{key}_{cost}": float(cell) for cost, cell in zip(COSTS, cells[3:], strict=True)}
        elif key in SHAPE:
            found[key] = float(cells[2])
    return found


def markdown(head: Row, rows: Iterable[Row]) -> str:
    """A table.

    >>> print(markdown(("a", "b"), [("1", "2")]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join((lines[0], "|" + "---|" * len(head), *lines[1:]))


def part(page: str, name: str) -> str:
    """What stands in a page of docs between `<!-- begin: name -->` and `<!-- end -->`."""
    found = re.search(rf"<!-- begin: {re.escape(name)} -->\n+(.*?)\n+<!-- end -->", page, re.S)
    if not found:
        raise ValueError(
            f"no part {name!r}; allowed: one between `<!-- begin: {name} -->` and `<!-- end -->`"
        )
    return found[1]


def told(value: float, unit: str = "") -> str:
    """Three figures, for people.

    >>> told(1_234_567, "rows/s"), told(0.25), told(2.5e12, "B"), told(1_500, "bit/s"), told(50_000)
    ('1.23 M rows/s', '0.25', '2.5 TB', '1.5 kbit/s', '50,000')
    """
    close = unit.startswith(("B", "bit"))
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size and (close or size > 1e3):
            return f"{float(f'{value / size:.3g}'):g} {prefix}{'' if close else ' '}{unit}".strip()
    return f"{float(f'{value:.3g}'):,.10g} {unit}".strip()
