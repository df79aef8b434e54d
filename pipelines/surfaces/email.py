"""`endcap email`: the e-mails that are due at an instant, with the products of each.

Who is due is read from the offline store as it stood at `--now` (pipelines/surfaces/due.py); the lists come
from serving.pipeline.recommend: release, surfaces, filters and rules are those of live answers.

data/email/<instant>.parquet   a row per e-mail: surface, user_id, session_id, since, anchors, items, sources,
                               bundle. Nothing is sent, and nobody is in it whose newest word was no consent.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from redis import RedisError

from feature_repo.clock import HOUR_US, instant, micros
from feature_repo.errors import DataError, ParamsError
from feature_repo.events import PRODUCT_TYPES, TIMESTAMP
from feature_repo.files import write_parquet
from feature_repo.offline.timeline import historical
from feature_repo.online.connection import CONNECT_S, ONCE, client
from feature_repo.params import load
from feature_repo.places import CANDIDATE, EMAIL, EVENTS, at, existing
from pipelines.protocol.known import Known, answers, asked_at
from pipelines.protocol.queries import Query, QueryParams, product_events
from pipelines.surfaces.due import Due, EmailParams, due
from serving.cascade.rungs import SHOPPER_RAIL
from serving.cascade.shortened import of_rail
from serving.pipeline import Bundle, recommend
from serving.rails.rail import RailParams, decode, key_of, stale, unit
from serving.release import bundle as releases
from serving.stages.steering import UNSTEERED
from serving.types import Context, Slot

TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        pa.field("surface", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("since", TIMESTAMP, nullable=False),
        pa.field("anchors", TEXTS, nullable=False),
        pa.field("items", TEXTS, nullable=False),
        pa.field("sources", TEXTS, nullable=False),
        pa.field("bundle", pa.string(), nullable=False),
    ]
)


def main(
    now: Annotated[
        str | None, typer.Option(help="The instant, as 2026-02-25T08:00:00Z; default: the newest event's.")
    ] = None,
    bundle: Annotated[Path, typer.Option(help="folder of the release")] = CANDIDATE,
) -> None:
    """Who is due an e-mail, and the products in it: data/email/<instant>.parquet."""
    moment, params = _moment(now), load("email", EmailParams)
    folder = at(bundle)
    if not folder.exists():
        raise DataError(bundle, "is no release", next_step="run `endcap bundle`, or name one with --bundle")
    release = releases.load(folder)
    found = who_is_due(moment, params)
    lists = fill(found, release, moment, params.limit)
    path = EMAIL / f"{instant(moment):%Y%m%dT%H%M%SZ}.parquet"
    at(EMAIL).mkdir(parents=True, exist_ok=True)
    write_parquet(at(path), SCHEMA, [_table(found, lists, release.digest)])
    many = Counter(one.surface for _, _, one in found)
    told = ", ".join(f"{count} {surface}" for surface, count in sorted(many.items())) or "nobody is due"
    print(f"{path}: {told}")


def who_is_due(now: int, params: EmailParams) -> list[tuple[str, str, Due]]:
    """(user_id, session_id, what) of everybody who is due at `now` (us), by user_id."""
    newest = _newest_visits(now, params)
    if newest.empty:
        return []
    who = list(zip(newest["user_id"], newest["session_id"], strict=True))
    rows = historical(asked_at([now - 1] * len(who), who), "visitor")
    stored = zip(who, rows["user_history"], rows["session_context"], strict=True)
    asked = ((ids, due(now, ids[0], user, visit, params)) for ids, user, visit in stored if user)
    return [(*ids, one) for ids, one in asked if one]


def fill(
    found: Sequence[tuple[str, str, Due]], release: Bundle, now: int, limit: int
) -> list[tuple[Slot, ...]]:
    """The products of every e-mail, in the order of `found`."""
    asked = []
    for number, (user, session, one) in enumerate(found):
        cart, page = ((), one.items) if one.surface != "email_abandoned_cart" else (one.items, ())
        query = Query(number, now, user, session, (), frozenset(), Context(), one.surface, page, cart)
        asked.append(query)

    beforehand = rails_of(found, release, now)

    def answer(known: Known) -> tuple[Slot, ...]:
        if items := beforehand.get(known.query.id):
            asked = known.request, release, known.visitor, known.matrix, UNSTEERED
            return of_rail(items, SHOPPER_RAIL, *asked)
        return recommend(known.request, release, known.visitor, known.matrix).slots

    processes = load("queries", QueryParams).processes
    return list(answers(asked, release.models.ids, limit, "email", answer, processes))


def rails_of(found: Sequence[tuple[str, str, Due]], release: Bundle, now: int) -> dict[int, list[str]]:
    """Place in `found` -> what `endcap rails` made for this e-mail, of this release and fresh at `now` (us).

    Nothing where no Redis answers.
    """
    params, ready = load("rails", RailParams), dict[int, list[str]]()
    with client(retry=ONCE, socket_timeout=CONNECT_S) as redis:
        for number, (user, session, one) in enumerate(found):
            try:
                raw: Any = redis.get(key_of(f"{unit(user, session)}"))
            except RedisError:
                return ready
            rail = decode(raw) if raw else None
            if rail is None or stale(rail, release.digest, now, params.max_age_s):
                continue
            anchors, items = rail.mails.get(one.surface, ((), ()))
            if list(anchors) == list(one.items):
                ready[number] = list(items)
    return ready


def _moment(now: str | None) -> int:
    if now is None:
        return int(product_events()["event_ts"].max())
    try:
        return micros(now)
    except (ValueError, OverflowError):
        allowed = "an instant with a time zone, as 2026-02-25T08:00:00Z"
        raise ParamsError(f"--now: {now!r} is no instant; allowed: {allowed}") from None


def _newest_visits(now: int, params: EmailParams) -> pd.DataFrame:
    """user_id, session_id: the newest visit before `now` of everybody who was here within the longest wait
    and whose newest event was with consent.
    """
    wait = max(params.order_after_h, params.cart_after_h, params.browse_after_h) + params.window_h
    names = ["event_ts", "type", "user_id", "session_id", "consent"]
    stamps = pc.field("event_ts").cast(pa.int64())
    inside = (stamps >= int(now - wait * HOUR_US)) & (stamps < now) & pc.field("user_id").is_valid()
    table = pq.read_table(existing(EVENTS, "ingest", *names), columns=names, filters=inside)
    events = table.to_pandas().sort_values("event_ts", kind="stable")
    agreed = events.groupby("user_id")["consent"].last()
    events = events[events["type"].isin(PRODUCT_TYPES) & events["user_id"].map(agreed).astype(bool)]
    return events.groupby("user_id", as_index=False)["session_id"].last()


def _table(found: Sequence[tuple[str, str, Due]], lists: Sequence[tuple[Slot, ...]], digest: str) -> pa.Table:
    rows = [
        {
            "surface": one.surface,
            "user_id": user,
            "session_id": session,
            "since": instant(one.since),
            "anchors": list(one.items),
            "items": [slot.item_id for slot in slots],
            "sources": [slot.source for slot in slots],
            "bundle": digest,
        }
        for (user, session, one), slots in zip(found, lists, strict=True)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)
