"""Equality of two answers to one question, slot by slot and value by value, and who is to blame."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from feature_repo.vectorize import COLUMNS
from pipelines.queries import Query
from serving.types import Request
from training.metrics import ndcg

CHAMPION = "champion"
EXAMPLES = 20


@dataclass(frozen=True)
class Expected:
    """The offline answer to one query: items best first, and item -> its 28 values."""

    query: Query
    request: Request
    items: list[str]
    values: dict[str, np.ndarray]


@dataclass
class Parity:
    """What was compared. `unequal` counts, per column, the values that differ."""

    asked: int = 0
    champion: int = 0
    slots: int = 0
    equal_slots: int = 0
    values: int = 0
    unequal: Counter[str] = field(default_factory=Counter)
    online: list[float] = field(default_factory=list)
    offline: list[float] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def equal_share(self) -> float:
        return self.equal_slots / self.slots if self.slots else 0.0

    def report(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "answered_by_champion": self.champion,
            "slots": self.slots,
            "equal_slots": self.equal_slots,
            "values": self.values,
            "unequal_values": dict(self.unequal),
            "ndcg_at_12_online": float(np.mean(self.online)) if self.online else None,
            "ndcg_at_12_offline": float(np.mean(self.offline)) if self.offline else None,
            "items_shown": len(self.shown),
            "examples": self.examples,
        }

    def check(self, answer: dict[str, Any], expected: Expected, tolerance: float) -> None:
        """Compare the JSON of the service with the offline answer; arms but the champion are only counted."""
        self.asked += 1
        if answer["arm"] != CHAMPION:
            return
        self.champion += 1
        items = [slot["item_id"] for slot in answer["items"]]
        self.shown.update(items)
        self.online.append(ndcg(items, expected.query.relevant, 12))
        self.offline.append(ndcg(expected.items, expected.query.relevant, 12))
        self.slots += len(expected.items)
        equal = sum(a == b for a, b in zip(items, expected.items, strict=False))
        self.equal_slots += equal
        features = (answer.get("debug") or {}).get("features", {})
        differ: dict[str, list[float | None]] = {}
        for item, values in expected.values.items():
            if item not in features:
                continue
            online = np.array([np.nan if v is None else v for v in features[item]], np.float32)
            close = np.isclose(online, values, rtol=tolerance, atol=tolerance, equal_nan=True)
            self.values += len(COLUMNS)
            for at in np.flatnonzero(~close).tolist():
                self.unequal[COLUMNS[at]] += 1
                differ[COLUMNS[at]] = [float(online[at]), float(values[at])]
        if (differ or equal < len(expected.items)) and len(self.examples) < EXAMPLES:
            self.examples.append(
                {"query": expected.query.id, "degraded": answer["degraded"], "online": items}
                | {"offline": expected.items, "values": differ}
            )


def show(found: Parity) -> None:
    """The comparison as a table, the culprits named."""
    console = Console(highlight=False)
    table = Table(title="Replay over HTTP against offline", title_justify="left")
    for name in ("what", "online", "offline"):
        table.add_column(name, justify="left" if name == "what" else "right")
    report = found.report()
    table.add_row("query points asked", f"{found.asked:,}", "")
    table.add_row("answered by the champion (the rest is the holdout)", f"{found.champion:,}", "")
    table.add_row("NDCG@12", *(f"{report[f'ndcg_at_12_{side}'] or 0:.4f}" for side in ("online", "offline")))
    table.add_row("distinct items shown", f"{len(found.shown):,}", "")
    table.add_row("slots equal", f"{found.equal_slots:,}", f"of {found.slots:,} ({found.equal_share:.3%})")
    unequal = sum(found.unequal.values())
    table.add_row("feature values equal", f"{found.values - unequal:,}", f"of {found.values:,}")
    for column, count in found.unequal.most_common():
        table.add_row(f"  {column} differs", f"{count:,}", "")
    console.print(table)
