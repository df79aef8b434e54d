"""The query points of session continuation, the protocol that the gate, the ranker and the replay share.

A session belongs to a span of time by its first product event. With its distinct items i1..in in order of
first contact (n >= 2), query k = 1..min(n, 20)-1 stands one microsecond after the first contact with ik: what
is known are i1..ik, what is wanted are ik+1..in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.clock import micros
from feature_repo.events import KINDS, PRODUCT_TYPES
from feature_repo.places import EVENTS, RAW, existing
from serving.types import Context, Request

MAX_ITEMS = 20
SURFACE = "homepage_hero"  # the surface that the protocol asks on
_COLUMNS = [
    "event_ts",
    "event_id",
    "type",
    "user_id",
    "session_id",
    "item_id",
    "device",
    "country",
    "channel",
]


@dataclass(frozen=True)
class QueryParams:
    """Section `queries` of params.yaml."""

    source: str  # of the ranker's training set, one of ranker_data.SOURCES
    wait_hours: float  # logged: how long after an answer a contact of the visit counts as its label
    seed: int
    ranker: int  # queries of the ranker's training and validation
    evaluate: int  # queries of the evaluation
    pages: int  # logged lists at most, whose clicks the evaluation looks at
    surfaces: int  # queries of each surface's own slice
    reference: int  # answers of the sample that live ones are compared with
    processes: int  # that ask side by side, each with an item matrix of its own


@dataclass(frozen=True, slots=True)
class Query:
    """One question of the protocol; `now` in us, `history` oldest first, `relevant` not empty."""

    id: int
    now: int
    user_id: str | None
    session_id: str
    history: tuple[str, ...]
    relevant: frozenset[str]
    context: Context
    surface: str = SURFACE
    items: tuple[str, ...] = ()  # that the page is about
    cart: tuple[str, ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)  # of what is wanted: KINDS

    def request(self, limit: int = 12) -> Request:
        """The same question as a storefront would put it."""
        return Request(
            surface=self.surface,
            user_id=self.user_id,
            session_id=self.session_id,
            items=self.items,
            cart=self.cart,
            exclude=self.history,
            context=self.context,
            limit=limit,
            as_of=self.now,
        )


def product_events(raw: Path = RAW, visits: pa.ChunkedArray | None = None) -> pd.DataFrame:
    """Product events of data/raw/events.parquet in order (event_ts, event_id); event_ts in us, int64.

    `visits`: the session_ids whose events these are; None for all.
    """
    path = existing(raw / EVENTS.name, "ingest", *_COLUMNS)
    wanted = pc.field("type").isin(PRODUCT_TYPES)
    if visits is not None:
        wanted &= pc.field("session_id").isin(visits)
    table = pq.read_table(path, columns=_COLUMNS, filters=wanted)
    frame = table.to_pandas()
    frame["event_ts"] = frame["event_ts"].astype("datetime64[us, UTC]").astype("int64")
    return frame.sort_values(["event_ts", "event_id"], kind="stable", ignore_index=True)


def make_queries(
    events: pd.DataFrame, start: datetime, end: datetime | None, limit: int | None, rng: np.random.Generator
) -> list[Query]:
    """Queries of the sessions in [start, end) in time order; about `limit`, whole sessions drawn by `rng`."""
    first = events.groupby("session_id")["event_ts"].transform("min")
    inside = first >= micros(start)
    if end is not None:
        inside &= first < micros(end)
    asked = events[inside]
    known = asked.groupby("session_id")["user_id"].ffill()  # whom the storefront knew by then
    pair = [asked["session_id"], asked["item_id"]]
    strongest = asked["type"].map(KINDS).groupby(pair).transform("max")
    contacts = asked.assign(user_id=known.where(known.notna(), None), kind=strongest).drop_duplicates(
        ["session_id", "item_id"]
    )
    contacts = contacts[contacts.groupby("session_id")["item_id"].transform("size") >= 2]
    sessions = dict(tuple(contacts.groupby("session_id", sort=False)))
    names = list(sessions)
    if limit is not None:
        names = [names[i] for i in rng.permutation(len(names))]
    queries: list[Query] = []
    for name in names:
        if limit is not None and len(queries) >= limit:
            break
        queries.extend(_session_queries(sessions[name]))
    queries.sort(key=lambda q: (q.now, q.session_id))
    return [replace(query, id=number) for number, query in enumerate(queries)]


def _session_queries(contacts: pd.DataFrame) -> list[Query]:
    items = contacts["item_id"].tolist()
    stamps, users = contacts["event_ts"].tolist(), contacts["user_id"].tolist()
    kinds = dict(zip(items, contacts["kind"].tolist(), strict=True))
    head = contacts.iloc[0]
    context = Context(device=head["device"], country=head["country"], channel=head["channel"])
    return [
        Query(
            0,
            stamps[k - 1] + 1,
            users[k - 1],
            head["session_id"],
            tuple(items[:k]),
            frozenset(items[k:]),
            context,
            kinds={item: kinds[item] for item in items[k:]},
        )
        for k in range(1, min(len(items), MAX_ITEMS))
    ]
