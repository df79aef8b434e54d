"""What was said of a simulated shop's items in its test span, as the consumers would have written it down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.clock import instant, micros
from feature_repo.offline import item_log
from feature_repo.params import shop
from feature_repo.places import ITEM_LOG


def change_items(home: Path) -> None:
    """In the test span: prices move, two products sell out, two are born, one of them and another go."""
    start = micros(shop().test_from)
    events = pq.read_table(home / "data/raw/events.parquet", columns=["event_ts", "item_id"]).to_pandas()
    instants = np.sort(events["event_ts"].astype("datetime64[us, UTC]").astype("int64"))
    instants = instants[instants > start]
    loved = events["item_id"].value_counts().index[:6].tolist()
    title = {"title": "Steel mug with a lid", "category_path": "Home/Kitchen/Mugs", "brand": "Kelmora"}
    born = title | {"price": 12.5, "margin": 0.4, "stock": 30}
    told: list[tuple[int, str, dict[str, Any]]] = [
        (3, "born", born),
        (4, "born for an hour", born | {"title": "Blue lamp"}),
        (6, loved[0], {"price": 3.5}),
        (9, loved[1], {"stock": 0}),
        (12, "born", {"price": 99.0}),
        (15, loved[2], {"deleted": True}),
        (18, "born for an hour", {"deleted": True}),
        (21, loved[1], {"stock": 9}),
        (24, loved[3], {"stock": 0, "price": 1.25}),
        (27, loved[4], {"title": "Another name", "category_path": "Home/Kitchen/Mugs"}),
    ]
    notes = [
        {
            "entry": f"{number}-0",
            "item_id": item,
            "event_ts": instant(int(instants[at])),
            "created_ts": instant(int(instants[at])),
            "said": orjson.dumps({"deleted": False} | said).decode(),
        }
        for number, (at, item, said) in enumerate(told)
    ]
    (home / ITEM_LOG).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(notes, schema=item_log.SCHEMA), home / ITEM_LOG / "0.0-9.0.parquet")
