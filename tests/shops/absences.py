"""Exports of a small simulated shop that lacks something, as many shops do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.events import ITEM_SCHEMA, SCHEMA

Parts = dict[str, pd.DataFrame]


def _of_types(*left_out: str) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts["events"] = parts["events"][~parts["events"]["type"].isin(left_out)]

    return change


def _without_columns(**columns: tuple[str, ...]) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        for part, names in columns.items():
            parts[part] = parts[part].assign(**dict.fromkeys(names))

    return change


def _orders_only(parts: Parts) -> None:
    """One order per visit, all its lines at the instant of the first view."""
    del parts["impressions"]
    lines = parts["events"].query("type == 'product_viewed'").drop_duplicates(["session_id", "item_id"])
    placed = lines.groupby("session_id")["event_ts"].transform("min")
    parts["events"] = lines.assign(type="purchase_completed", event_ts=placed, created_ts=placed)


def _whole_days(parts: Parts) -> None:
    for part in ("events", "impressions"):
        days = parts[part]["event_ts"].dt.floor("D")
        parts[part] = parts[part].assign(event_ts=days, created_ts=days)


def _products(count: int) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        kept = parts["events"]["item_id"].value_counts().index[:count]
        for part in parts:
            parts[part] = parts[part][parts[part]["item_id"].isin(kept)]

    return change


def _no_repeats(parts: Parts) -> None:
    for part in ("events", "impressions"):
        parts[part] = parts[part].assign(user_id="u-" + parts[part]["session_id"])


def _no_impressions(parts: Parts) -> None:
    del parts["impressions"]


ABSENCES: dict[str, Callable[[Parts], None]] = {
    "impressions": _no_impressions,
    "carts": _of_types("add_to_cart", "remove_from_cart"),
    "purchases": _of_types("purchase_completed"),
    "prices": _without_columns(
        events=("price",), impressions=("price",), items=("price", "margin", "currency")
    ),
    "categories": _without_columns(items=("category_path",)),
    "users": _without_columns(events=("user_id",), impressions=("user_id",)),
    "anything but orders": _orders_only,
    "times of day": _whole_days,
    "products but one": _products(1),
    "products but eleven": _products(11),
    "repeat visitors": _no_repeats,
}


def write_lacking(absence: str, source: Path, target: Path) -> None:
    """The canonical export in `source`, changed by ABSENCES[absence], into `target`."""
    parts = {
        part: pq.read_table(source / f"{part}.parquet").to_pandas()
        for part in ("events", "impressions", "items")
    }
    ABSENCES[absence](parts)
    target.mkdir(parents=True)
    for part, frame in parts.items():
        schema = ITEM_SCHEMA if part == "items" else SCHEMA
        pq.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False), target / f"{part}.parquet")
