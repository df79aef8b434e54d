"""What a release meets where nothing is wrong: its answers at past moments like those of a storefront.

The protocol's queries stand just after a contact, on the homepage. A storefront asks as each page is shown:
at the start of a visit, after a page without a click, on product pages. Live answers are compared with their
like (monitoring/drift), so the sample holds all of these.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.clock import micros
from feature_repo.errors import DataError
from feature_repo.events import TIMESTAMP
from feature_repo.files import write_parquet
from feature_repo.params import load, shop
from feature_repo.places import IMPRESSIONS, RAW, REFERENCE, at, existing
from pipelines.protocol.known import Known, answers
from pipelines.protocol.queries import SURFACE, Query, QueryParams, product_events
from serving.pipeline import Bundle, recommend
from serving.types import Context, Floats

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


def write_reference(release: Bundle) -> None:
    """Answers of `release` at moments of the test span -> REFERENCE. Raises DataError without any."""
    params = load("queries", QueryParams)
    rng = np.random.default_rng(params.seed)
    asked = moments(product_events(), shop().test_from, params.reference, rng)
    if not asked:
        raise DataError(RAW, "no visit since the test cut", next_step="move test_from of the shop")

    def answer(known: Known) -> Floats:
        found = recommend(known.request, release, known.visitor, known.matrix).ranked.matrix  # (k, 28)
        drawn = np.random.default_rng((params.seed, known.query.id))
        return found[drawn.permutation(len(found))[:KEPT]]

    found = list(answers(asked, release.models.ids, 12, "reference", answer, params.processes))
    write_parquet(at(REFERENCE), SCHEMA, [_table(asked, found)])


def moments(events: pd.DataFrame, start: datetime, limit: int, rng: np.random.Generator) -> list[Query]:
    """About `limit` moments of visits that begin at `start` or later, whole visits drawn by `rng`, by time.

    `events`: product events, as queries.product_events gives them; the pages of a visit are read from raw.
    The homepage and, after a contact, the product's page ask: as a page is shown, and at once after contacts.
    """
    touched = events[events["event_ts"] >= micros(start)]
    pages = _pages(start)
    seen = pd.concat([touched, pages]).sort_values("event_ts", kind="stable")
    begun = events.groupby("session_id")["event_ts"].min()
    old = set(begun.index[begun < micros(start)])
    found: list[Query] = []
    groups = {name: rows for name, rows in seen.groupby("session_id", sort=True) if name not in old}
    names = list(groups)
    for place in rng.permutation(len(names)):
        if len(found) >= limit:
            break
        found += _of_visit(groups[names[place]], rng)
    found.sort(key=lambda query: (query.now, query.session_id, query.surface))
    return [replace(query, id=number) for number, query in enumerate(found)]


def _table(asked: Sequence[Query], found: Sequence[Floats]) -> pa.Table:
    """SCHEMA: a row per candidate kept, `found` (k, 28) of each query."""
    names, many = SCHEMA.names[: -len(COLUMNS)], [len(rows) for rows in found]
    visits = {q.session_id: f"visit {n}" for n, q in enumerate(asked)}  # a release holds nobody's id
    told = pd.DataFrame([(str(q.id), visits[q.session_id], q.now, q.surface) for q in asked], columns=names)
    told = told.loc[np.repeat(told.index, many)]
    columns = [pa.array(told[name], SCHEMA.field(name).type) for name in names]
    columns += [pa.array(column, from_pandas=True) for column in np.concatenate(found).T]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


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
    for place in sorted({0, *rng.permutation(pages)[: PER_VISIT - 1].tolist()}):
        ask(int(stamps[place]), int(np.searchsorted(stamps, stamps[place])), at_once=False)
    for place in rng.permutation(contacts)[:PER_VISIT].tolist():
        ask(int(stamps[place]) + 1, int(np.searchsorted(stamps, stamps[place], side="right")), at_once=True)
    return found


def _pages(start: datetime) -> pd.DataFrame:
    """One row per page of a list since `start`: its instant, and no item."""
    names = ["event_ts", "user_id", "session_id", "device", "country", "channel"]
    since = pc.field("event_ts") >= pa.scalar(start, TIMESTAMP)
    table = pq.read_table(existing(IMPRESSIONS, "ingest", *names), columns=names, filters=since)
    frame = table.to_pandas().drop_duplicates(["session_id", "event_ts"])
    frame["event_ts"] = frame["event_ts"].astype("datetime64[us, UTC]").astype("int64")
    return frame.assign(item_id=None)
