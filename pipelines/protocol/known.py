"""Query points met as serving would have met them: stored rows and the item matrix as of just before `now`.

An event at `now` itself is not seen, as it is not posted by then in a replay; `now` is the instant to which
values are brought.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from feature_repo.clock import micros
from feature_repo.events import PRODUCT_TYPES
from feature_repo.offline.timeline import ItemTimeline, historical
from feature_repo.params import on_spark
from feature_repo.places import RAW
from feature_repo.side_by_side import in_turn
from feature_repo.terminal import progress
from pipelines.protocol.queries import MAX_ITEMS, Query, make_queries, product_events
from serving.pipeline import visitor_of
from serving.types import Request

T = TypeVar("T")
CHUNK = 100  # queries that a process answers before it hands them over


class Known(NamedTuple):
    """One query with all that was known before its instant. `matrix` moves on with the next query."""

    query: Query
    request: Request
    visitor: Visitor
    matrix: ItemMatrix


def query_points(
    start: datetime, end: datetime | None, limit: int | None, rng: np.random.Generator
) -> list[Query]:
    """make_queries of all product events; on Spark only those of the visits drawn come to this process."""
    if not on_spark():
        return make_queries(product_events(), start, end, limit, rng)
    from feature_repo.offline.spark import raw_frame, session  # another machinery, which few need

    raw_frame(RAW).createOrReplaceTempView("events")
    kinds = ", ".join(f"'{kind}'" for kind in PRODUCT_TYPES)
    until = f"AND begun.ts < {micros(end)}" if end is not None else ""
    begun = f"""
        SELECT session_id, points FROM (
            SELECT session_id, least(count(DISTINCT item_id), {MAX_ITEMS}) - 1 AS points,
                   min(struct(ts, event_id)) AS begun
            FROM events WHERE type IN ({kinds}) GROUP BY session_id)
        WHERE points > 0 AND begun.ts >= {micros(start)} {until} ORDER BY begun"""
    visits = session().sql(begun).toArrow()
    names = visits["session_id"]
    if limit is not None:
        drawn = rng.permutation(len(visits))
        reached = np.cumsum(visits["points"].to_numpy()[drawn])
        names = names.take(pa.array(drawn[: np.searchsorted(reached, limit) + 1]))
    return make_queries(product_events(visits=names), start, end, None, rng)


def asked_at(instants: Sequence[int], who: Sequence[tuple[str | None, str]]) -> pd.DataFrame:
    """What Feast is asked: (user_id, session_id) at each instant (us)."""
    moments = pd.to_datetime(instants, unit="us", utc=True).as_unit("us")
    users, sessions = [user for user, _ in who], [session for _, session in who]
    return pd.DataFrame({"user_id": users, "session_id": sessions, "event_timestamp": moments})


def answers(
    queries: Sequence[Query],
    ids: Sequence[str],
    limit: int,
    told: str,
    answer: Callable[[Known], T],
    processes: int,
) -> Iterator[T]:
    """`answer` of every query in time order, by `processes` side by side: the same whatever their number.

    `ids` is the catalogue, `limit` the slots asked for, `told` the word in front of the progress bar.
    """
    chunks = [queries[at : at + CHUNK] for at in range(0, len(queries), CHUNK)]

    def work(part: int, parts: int) -> Iterator[list[T]]:
        mine = chunks[part::parts]
        found = map(answer, known_at([query for chunk in mine for query in chunk], ids, limit))
        for chunk in mine:
            yield list(islice(found, len(chunk)))

    with progress(total=len(queries), desc=told, unit=" queries") as bar:
        side = 1 if on_spark() else processes  # a JVM does not survive a fork
        for done in in_turn(work, max(1, min(side, len(chunks)))):
            bar.update(len(done))
            yield from done


def known_at(queries: Sequence[Query], ids: Sequence[str], limit: int) -> Iterator[Known]:
    """The queries in time order, their rows read through Feast (service `visitor`) point in time."""
    if not queries:
        return
    asked = asked_at([q.now - 1 for q in queries], [(q.user_id, q.session_id) for q in queries])
    rows = historical(asked, "visitor")
    users, sessions = rows["user_history"].tolist(), rows["session_context"].tolist()
    timeline = ItemTimeline.at(ids, queries[0].now - 1)
    for query, user, session in zip(queries, users, sessions, strict=True):
        timeline.advance(query.now - 1)
        request = query.request(limit)
        yield Known(query, request, visitor_of(request, query.now, user, session), timeline.matrix)
