"""A shop of a few shoppers and a few hundred random events, for tests of features."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.clock import DAY_US
from feature_repo.events import ITEM_SCHEMA, SCHEMA
from feature_repo.folds.fold import Event

START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
KINDS = ("impression", "product_viewed", "click", "add_to_cart", "purchase_completed", "remove_from_cart")
SHARES = (0.55, 0.2, 0.06, 0.1, 0.04, 0.05)
EVENTS_TOTAL = 900
ITEMS = [f"item {i}" for i in range(12)]


def open_home(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own: ENDCAP_HOME with a copy of params.yaml and no data."""
    shutil.copy(Path(__file__).parents[2] / "params.yaml", folder / "params.yaml")
    patch.setenv("ENDCAP_HOME", str(folder))
    return folder


def random_events(seed: int, count: int, days: float = 12.0) -> list[dict[str, Any]]:
    """Canonical events, instants in us, sorted by (event_ts, event_id), a third of them at a shared instant.

    Sessions belong to one user or to none; one user in five gave no consent.
    """
    rng = np.random.default_rng(seed)
    ts = START + np.sort(rng.integers(0, int(days * DAY_US), count))
    shared = rng.random(count) < 0.33
    for i in range(1, count):
        ts[i] = ts[i - 1] if shared[i] else ts[i]
    events = []
    for i, instant in enumerate(ts.tolist()):
        visit = int(rng.integers(0, 20))
        kind = str(rng.choice(KINDS, p=SHARES))
        events.append(
            {
                "event_id": f"e{i:06d}",
                "event_ts": instant,
                "created_ts": instant + int(rng.integers(0, 5)) * 1_000_000,
                "type": kind,
                "user_id": f"user {visit % 7}" if visit % 7 else None,
                "session_id": f"session {visit}",
                "item_id": str(rng.choice(ITEMS)),
                "request_id": f"page {instant}" if rng.random() < 0.5 else None,
                "position": int(rng.integers(1, 20)) if kind == "impression" and rng.random() < 0.9 else None,
                "consent": visit % 7 != 5,
            }
        )
    return sorted(events, key=lambda e: (e["event_ts"], e["event_id"]))


def as_event(event: dict[str, Any]) -> Event:
    """What a fold reads of a canonical event."""
    names = {name: event[name] for name in Event._fields if name in event}
    user = event["user_id"] if event["consent"] else None
    return Event(**{**names, "ts": event["event_ts"], "user_id": user})


def write_raw(home: Path, events: list[dict[str, Any]]) -> None:
    """data/raw as `endcap ingest` leaves it, with a catalogue of ITEMS and one item that nobody touches."""
    raw = home / "data" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, wanted in (("events", False), ("impressions", True)):
        rows = [e for e in events if (e["type"] == "impression") == wanted]
        columns = [pa.array([e.get(f.name) for e in rows], f.type) for f in SCHEMA]
        pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), raw / f"{name}.parquet")
    catalogue = [
        {
            "item_id": item,
            "title": item.upper(),
            "category_path": f"Home/{'AB'[i % 2]}",
            "price": 5.0 + i if i % 3 else None,
            "stock": i if i % 4 else None,
            "available_from": datetime(2026, 1, 3, tzinfo=UTC) if i % 2 else None,
        }
        for i, item in enumerate([*ITEMS, "untouched"])
    ]
    columns = [pa.array([row.get(f.name) for row in catalogue], f.type) for f in ITEM_SCHEMA]
    pq.write_table(pa.Table.from_arrays(columns, schema=ITEM_SCHEMA), raw / "items.parquet")
