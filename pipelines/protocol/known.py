"""Query points met as serving would have met them: stored rows and the item matrix as of just before `now`.

An event at `now` itself is not seen, as it is not posted by then in a replay; `now` is the instant to which
values are brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from feature_repo.offline.timeline import ItemTimeline, historical
from pipelines.protocol.queries import Query
from serving.pipeline import visitor_of
from serving.types import Request


class Known(NamedTuple):
    """One query with all that was known before its instant. `matrix` moves on with the next query."""

    query: Query
    request: Request
    visitor: Visitor
    matrix: ItemMatrix


def asked_at(instants: Sequence[int], who: Sequence[tuple[str | None, str]]) -> pd.DataFrame:
    """What Feast is asked: (user_id, session_id) at each instant (us)."""
    moments = pd.to_datetime(instants, unit="us", utc=True).as_unit("us")
    users, sessions = [user for user, _ in who], [session for _, session in who]
    return pd.DataFrame({"user_id": users, "session_id": sessions, "event_timestamp": moments})


def known_at(queries: Sequence[Query], ids: Sequence[str], limit: int, told: str) -> Iterator[Known]:
    """The queries in time order, their rows read through Feast (service `visitor`) point in time.

    `ids` is the catalogue, `limit` the slots asked for, `told` the word in front of the progress bar.
    """
    if not queries:
        return
    asked = asked_at([q.now - 1 for q in queries], [(q.user_id, q.session_id) for q in queries])
    answers = historical(asked, "visitor")
    users, sessions = answers["user_history"].tolist(), answers["session_context"].tolist()
    timeline = ItemTimeline.at(ids, queries[0].now - 1)
    progress = tqdm(queries, desc=told, unit=" queries", disable=None)
    for query, user, session in zip(progress, users, sessions, strict=True):
        timeline.advance(query.now - 1)
        request = query.request(limit)
        yield Known(query, request, visitor_of(request, query.now, user, session), timeline.matrix)
