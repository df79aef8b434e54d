"""What a release meets where nothing is wrong: its answers at past moments like those of a storefront.

The protocol's queries stand just after a contact, on the homepage. A storefront asks as each page is shown:
at the start of a visit, after a page without a click, on product pages. Live answers are compared with their
like (monitoring/drift), so the sample holds all of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from feature_repo.events import TIMESTAMP
from feature_repo.params import load, root, shop
from pipelines.protocol.known import visits
from pipelines.protocol.queries import SURFACE, Query, product_events
from pipelines.protocol.ranker_data import QueryParams
from serving.pipeline import Release, recommend
from serving.types import Context

REFERENCE = "data/reports/reference.parquet"
PRODUCT_PAGE = "pdp_fbt"
PER_VISIT = 3  # pages and contacts drawn of one visit, its start among the pages
KEPT = 24  # candidates kept of an answer, drawn at random: those of one answer are much alike
SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("ts", pa.int64(), nullable=False),  # us
        pa.field("surface", pa.string(), nullable=False),
        *(pa.field(name, pa.float32()) for name in COLUMNS),
    ]
)


def write_reference(release: Release) -> None:
    """Answers of `release` at moments of the test span -> REFERENCE. Raises DataError without any."""
    raw, params = root() / "data" / "raw", load("queries", QueryParams)
    rng = np.random.default_rng(params.seed)
    asked = moments(product_events(raw), raw, shop().test_from, params.reference, rng)
    if not asked:
        raise DataError("data/raw", "no visit since the test cut", next_step="move test_from of the shop")
    pq.write_table(answers(release, asked, rng), root() / REFERENCE, compression="zstd")


def moments(
    events: pd.DataFrame, raw: Path, start: datetime, limit: int, rng: np.random.Generator
) -> list[Query]:
    """About `limit` moments of visits that begin at `start` or later, whole visits drawn by `rng`, by time.

    `events`: product events, as queries.product_events gives them; the pages of a visit are read from `raw`.
    The homepage and, after a contact, the product's page ask: as a page is shown, and at once after contacts.
    """
    touched = events[events["event_ts"] >= _us(start)]
    pages = _pages(raw, start)
    seen = pd.concat([touched, pages]).sort_values("event_ts", kind="stable")
    begun = events.groupby("session_id")["event_ts"].min()
    old = set(begun.index[begun < _us(start)])
    found: list[Query] = []
    groups = {name: rows for name, rows in seen.groupby("session_id", sort=True) if name not in old}
    names = list(groups)
    for at in rng.permutation(len(names)):
        if len(found) >= limit:
            break
        found += _of_visit(groups[names[at]], rng)
    found.sort(key=lambda query: (query.now, query.session_id, query.surface))
    return found


def answers(release: Release, asked: Sequence[Query], rng: np.random.Generator) -> pa.Table:
    """SCHEMA: what the ranker sees of KEPT candidates of each answer."""

    def blocks() -> Iterator[pa.RecordBatch]:
        for number, (query, request, visitor, matrix) in enumerate(
            visits(asked, release.ids, 12, "reference")
        ):
            found = recommend(request, release, visitor, matrix).ranked.matrix  # (k, 28)
            rows = found[rng.permutation(len(found))[:KEPT]]
            told = [
                [value] * len(rows) for value in (str(number), query.session_id, query.now, query.surface)
            ]
            columns = [pa.array(column, from_pandas=True) for column in rows.T]
            yield pa.RecordBatch.from_arrays(
                [*(pa.array(v, SCHEMA.field(i).type) for i, v in enumerate(told)), *columns], schema=SCHEMA
            )

    return pa.Table.from_batches(blocks(), SCHEMA)


def _of_visit(rows: pd.DataFrame, rng: np.random.Generator) -> list[Query]:
    """PER_VISIT of its pages, the first among them, and as many of its contacts."""
    stamps, users, touched = rows["event_ts"].to_numpy(), rows["user_id"].ffill(), rows["item_id"]
    first = rows.iloc[0]
    context = Context(device=first["device"], country=first["country"], channel=first["channel"])
    found: list[Query] = []

    def ask(now: int, known: int, at_once: bool) -> None:
        """What the first `known` rows tell, asked at `now`."""
        user, seen = users.iloc[known - 1 if known else 0], tuple(touched.iloc[:known].dropna())
        for surface, items in ((SURFACE, ()), (PRODUCT_PAGE, seen[-1:])):
            if surface == SURFACE or items:
                who = None if pd.isna(user) else user
                past = seen if at_once and not items else ()  # as the protocol asks
                found.append(
                    Query(0, now, who, first["session_id"], past, frozenset(), context, surface, items)
                )

    contacts, pages = np.flatnonzero(touched.notna()), np.flatnonzero(touched.isna())
    for at in sorted({0, *rng.permutation(pages)[: PER_VISIT - 1].tolist()}):
        ask(int(stamps[at]), int(np.searchsorted(stamps, stamps[at])), at_once=False)
    for at in rng.permutation(contacts)[:PER_VISIT].tolist():
        ask(int(stamps[at]) + 1, int(np.searchsorted(stamps, stamps[at], side="right")), at_once=True)
    return found


def _pages(raw: Path, start: datetime) -> pd.DataFrame:
    """One row per page of a list since `start`: its instant, and no item."""
    names = ["event_ts", "user_id", "session_id", "device", "country", "channel"]
    since = pc.field("event_ts") >= pa.scalar(start, TIMESTAMP)
    table = pq.read_table(raw / "impressions.parquet", columns=names, filters=since)
    frame = table.to_pandas().drop_duplicates(["session_id", "event_ts"])
    frame["event_ts"] = frame["event_ts"].astype("datetime64[us, UTC]").astype("int64")
    return frame.assign(item_id=None)


def _us(instant: datetime) -> int:
    return round(instant.timestamp() * 1e6)
