"""Equality of two answers to one question: the list, the candidates, and their 28 values one by one."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from feature_repo.assemble.vectorize import COLUMNS
from pipelines.parity.culprits import MADE_OF, Stored, culprits
from pipelines.protocol.metrics import ndcg
from pipelines.protocol.queries import Query
from serving.types import Floats, Request

CHAMPION = "champion"
EXAMPLES = 3  # per column
LISTS = 20  # examples of lists that differ


@dataclass(frozen=True)
class Expected:
    """The offline answer to one query.

    items best first · candidates as ranked, values float32 (candidates, 28) · stored: the rows behind them
    """

    query: Query
    request: Request
    items: list[str]
    candidates: list[str]
    values: Floats
    stored: Stored

    def asked(self) -> dict[str, Any]:
        """Which question it was, for the examples of a report."""
        query = self.query
        return {"query": query.id, "session_id": query.session_id, "instant_us": query.now}


@dataclass
class Parity:
    """What was compared. Per column of COLUMNS: how many values, how many differ, and by how much at most.

    Two values are equal when |online - offline| <= tolerance * (|offline| + min(1, scale)), where scale is
    the column's largest |offline| so far: a column of 9e-5 online does not equal a column of 0 offline.
    """

    tolerance: float
    asked: int = 0
    asked_again: int = 0  # answers put aside because they came without features, and asked for anew
    champion: int = 0
    equal_lists: int = 0
    slots: int = 0
    equal_slots: int = 0
    candidates: int = 0
    shared_candidates: int = 0
    compared: int = 0  # values of each column
    unequal: np.ndarray = field(default_factory=lambda: np.zeros(len(COLUMNS), np.int64))
    largest: np.ndarray = field(default_factory=lambda: np.zeros(len(COLUMNS)))
    scale: np.ndarray = field(default_factory=lambda: np.zeros(len(COLUMNS)))
    online: list[float] = field(default_factory=list)
    offline: list[float] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    mismatches: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    list_examples: list[dict[str, Any]] = field(default_factory=list)

    def shares(self) -> dict[str, float]:
        """What must be equal -> the share of it that is; 0 where nothing was compared."""
        values = self.compared * len(COLUMNS)
        return {
            "slots": self.equal_slots / self.slots if self.slots else 0.0,
            "candidates": self.shared_candidates / self.candidates if self.candidates else 0.0,
            "values": 1 - int(self.unequal.sum()) / values if values else 0.0,
        }

    def column_shares(self) -> dict[str, float]:
        """Column of COLUMNS -> the share of its values that is equal; 0 where nothing was compared."""
        equal = (self.compared - self.unequal) / max(self.compared, 1)
        return dict(zip(COLUMNS, equal.tolist(), strict=True))

    def failures(self, min_equal: float, min_answered: float) -> list[str]:
        """Why the comparison is not passed, a line each; none if it is.

        At least `min_equal` of the slots, of the candidates, of all values and of each single column's must
        be equal, and the champion must have answered at least `min_answered` of what was asked.
        """
        shares = self.shares() | {f"values of {name}": share for name, share in self.column_shares().items()}
        found = [
            f"{share:.4%} of the {name} equal the offline ones, {min_equal:.4%} must"
            for name, share in shares.items()
            if share < min_equal
        ]
        if self.champion < min_answered * self.asked or not self.asked:
            told = f"the champion answered {self.champion} of {self.asked} questions"
            found.append(f"{told}, {min_answered:.0%} must be its own")
        return found

    def report(self) -> dict[str, Any]:
        columns = {
            column: {
                "compared": self.compared,
                "unequal": int(self.unequal[at]),
                "largest_difference": float(self.largest[at]),
                "made_of": list(MADE_OF[column]),
                "mismatches": self.mismatches.get(column, []),
            }
            for at, column in enumerate(COLUMNS)
        }
        names = ("equal_lists", "slots", "equal_slots", "candidates", "shared_candidates")
        return {
            "asked": self.asked,
            "asked_again": self.asked_again,
            "answered_by_champion": self.champion,
            "lists": self.champion,
            **{name: getattr(self, name) for name in names},
            "values": self.compared * len(COLUMNS),
            "unequal_values": {c: told["unequal"] for c, told in columns.items() if told["unequal"]},
            "shares": self.shares(),
            "ndcg_at_12_online": float(np.mean(self.online)) if self.online else None,
            "ndcg_at_12_offline": float(np.mean(self.offline)) if self.offline else None,
            "items_shown": len(self.shown),
            "features": columns,
            "lists_that_differ": self.list_examples,
        }

    def check(self, answer: dict[str, Any], expected: Expected) -> None:
        """Compare the JSON of the service with the offline answer; arms but the champion are only counted."""
        self.asked += 1
        if answer["arm"] != CHAMPION:
            return
        self.champion += 1
        items = [slot["item_id"] for slot in answer["items"]]
        self.shown.update(items)
        self.online.append(ndcg(items, expected.query.relevant, 12))
        self.offline.append(ndcg(expected.items, expected.query.relevant, 12))
        self._check_list(items, answer, expected)
        debug = answer.get("debug") or {}
        self._check_values(debug.get("features", {}), debug.get("stored"), expected)

    def _check_list(self, items: list[str], answer: dict[str, Any], expected: Expected) -> None:
        self.equal_lists += items == expected.items
        self.slots += max(len(items), len(expected.items))
        self.equal_slots += sum(a == b for a, b in zip(items, expected.items, strict=False))
        if items != expected.items and len(self.list_examples) < LISTS:
            sides = {"online": items, "offline": expected.items}
            self.list_examples.append(expected.asked() | {"degraded": answer["degraded"], **sides})

    def _check_values(
        self, features: dict[str, list[float | None]], stored: Stored | None, expected: Expected
    ) -> None:
        online_at = {item: at for at, item in enumerate(features)}
        at = np.array([i for i, item in enumerate(expected.candidates) if item in features], np.int64)
        self.candidates += max(len(expected.candidates), len(features))
        self.shared_candidates += len(at)
        shared = [expected.candidates[i] for i in at]
        online = np.array([features[item] for item in shared], np.float32).reshape(-1, len(COLUMNS))
        offline = expected.values[at]
        sizes = np.abs(np.nan_to_num(offline, posinf=0.0, neginf=0.0))
        self.scale = np.maximum(self.scale, sizes.max(0, initial=0.0))
        absolute = self.tolerance * np.minimum(self.scale, 1.0)  # (28,)
        close = np.isclose(online, offline, rtol=self.tolerance, atol=absolute, equal_nan=True)
        self.compared += len(at)
        self.unequal += (~close).sum(0)
        apart = np.where(close, 0.0, np.abs(np.nan_to_num(online) - np.nan_to_num(offline)))
        self.largest = np.maximum(self.largest, apart.max(0, initial=0.0))
        for row, column_at in np.argwhere(~close).tolist():
            column, found = COLUMNS[column_at], self.mismatches.setdefault(COLUMNS[column_at], [])
            if len(found) < EXAMPLES:
                item = shared[row]
                places = online_at[item], int(at[row])
                sides = {"online": online[row, column_at], "offline": offline[row, column_at]}
                told = expected.asked() | {"item_id": item}
                told |= {side: None if np.isnan(value) else float(value) for side, value in sides.items()}
                blamed = culprits(column, stored, expected.stored, places, self.tolerance)
                found.append(told | {"culprits": blamed})
