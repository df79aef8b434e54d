"""Instants at which the features are looked at, who is asked for there, and the shop as it was before."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.clock import instant, micros
from feature_repo.events import PRODUCT_TYPES, TIMESTAMP
from feature_repo.features.catalogue import SAID, said_at
from feature_repo.offline.duck import connect
from feature_repo.offline.history import FILES, raw_events
from feature_repo.params import CHOSEN, home
from feature_repo.places import ITEM_LOG, ITEMS, RAW, at

Asked = tuple[str | None, str]  # (user_id, session_id)


@dataclass(frozen=True)
class Cut:
    """An instant at which something happened, us, and who is asked for: visits with shoppers, and items."""

    at: int
    visits: list[Asked]
    items: list[str]


def choose(raw: Path, count: int, sessions: int, items: int, seed: int) -> list[Cut]:
    """Instants of `count` product events drawn by the seed, in order of time.

    Asked for are the visits that an instant falls into, then the newest before it, and items of these.
    """
    product = ", ".join(f"'{kind}'" for kind in PRODUCT_TYPES)
    cuts = []
    with raw_events(raw, "4GB") as events:
        drawn = events.execute(
            "SELECT ts, user_id, session_id, item_id FROM events"
            f" WHERE type IN ({product}) AND item_id IS NOT NULL"
            f" ORDER BY hash(event_id, {seed}), event_id LIMIT {count}"
        ).fetchall()
        for ts, user, session, item in drawn:
            visits = events.execute(
                f"""
                SELECT max(user_id), session_id FROM events GROUP BY session_id HAVING min(ts) < {ts}
                ORDER BY max(ts) < {ts}, if(max(ts) < {ts}, -max(ts), hash(session_id)), session_id
                LIMIT {sessions}"""
            ).fetchall()
            visits = list(dict.fromkeys([(user, session), *visits]))
            events.register("chosen", pd.DataFrame({"session_id": [s for _, s in visits]}))
            touched = events.execute(
                f"""
                SELECT DISTINCT item_id FROM events SEMI JOIN chosen USING (session_id)
                WHERE item_id IS NOT NULL ORDER BY hash(item_id), item_id LIMIT {items}"""
            ).fetchall()
            cuts.append(Cut(ts, visits, list(dict.fromkeys([item, *(i for (i,) in touched)]))))
    return sorted(cuts, key=lambda cut: cut.at)


@contextmanager
def home_before(cut: Cut) -> Iterator[None]:
    """A project folder with the events before the cut that concern its visits, shoppers and items."""
    with TemporaryDirectory(prefix="endcap-leakage-") as folder:
        there = Path(folder)
        (there / RAW).mkdir(parents=True)
        for name in (Path("params.yaml"), CHOSEN):
            if at(name).exists():
                shutil.copy(at(name), there / name)
        _copy_catalogue(at(ITEMS), there / ITEMS)
        _copy_events(at(RAW), there / RAW, cut)
        for file in at(ITEM_LOG).glob("*.parquet"):
            (there / ITEM_LOG).mkdir(parents=True, exist_ok=True)
            said = pq.read_table(file, filters=pc.field("event_ts") < pa.scalar(instant(cut.at), TIMESTAMP))
            pq.write_table(said, there / ITEM_LOG / file.name)
        with home(there):
            yield


def _copy_catalogue(source: Path, target: Path) -> None:
    """The export's own catalogue, which still tells when it was said: its events no longer do."""
    if source.exists():
        table = pq.read_table(source)
        pq.write_table(table.replace_schema_metadata({SAID: str(micros(said_at(source.parent)))}), target)


def _copy_events(source: Path, target: Path, cut: Cut) -> None:
    connection = connect()
    connection.register("sessions", pd.DataFrame({"session_id": [s for _, s in cut.visits]}))
    users = {user for user, _ in cut.visits if user is not None}
    connection.register("users", pd.DataFrame({"user_id": sorted(users)}, dtype="string"))
    connection.register("items", pd.DataFrame({"item_id": cut.items}))
    both = " UNION ALL ".join(f"SELECT session_id, user_id FROM '{source / name}'" for name in FILES)
    connection.execute(
        f"CREATE TABLE chosen AS SELECT session_id FROM sessions"
        f" UNION SELECT session_id FROM ({both}) SEMI JOIN users USING (user_id)"
    )
    for name in FILES:
        connection.execute(
            f"COPY (SELECT * FROM '{source / name}' WHERE epoch_us(event_ts) < {cut.at} AND"
            " (session_id IN (FROM chosen) OR item_id IN (FROM items)))"
            f" TO '{target / name}' (FORMAT parquet)"
        )
