"""The visits in data/raw as a storefront told them: POSTs of events, and the lists that were shown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow.parquet as pq

from feature_repo.clock import SECOND_US, micros
from feature_repo.places import EVENTS, IMPRESSIONS, at
from serving.access.signatures import Signatures
from serving.live.exposures import ExposureLog, exposure
from serving.types import Answer, Request, Slot

Posts = list[list[dict[str, Any]]]


def told() -> Posts:
    """data/raw as POSTs: what a visit told within a second, in the order of seconds since its visit began."""
    rows = [row for file in (EVENTS, IMPRESSIONS) for row in pq.read_table(at(file)).to_pylist()]
    for row in rows:
        row["event_ts"] = micros(row["event_ts"])
        del row["created_ts"]
    rows.sort(key=lambda row: (row["session_id"], row["event_ts"], row["event_id"]))
    posts = []
    for _, visit in groupby(rows, key=lambda row: row["session_id"]):
        events = list(visit)
        since = events[0]["event_ts"]
        seconds = groupby(events, key=lambda row: (row["event_ts"] - since) // SECOND_US)
        posts += [(second, list(post)) for second, post in seconds]
    return [post for _, post in sorted(posts, key=lambda one: one[0])]


def shown(posts: Posts, signatures: Signatures, log: ExposureLog) -> Iterator[tuple[Request, int]]:
    """The lists behind the impressions, logged as the service does; the events get the signed ids."""
    events = [event for post in posts for event in post if event["request_id"]]
    events.sort(key=lambda event: event["request_id"])
    for _, of_list in groupby(events, key=lambda event: event["request_id"]):
        named = list(of_list)
        slots = [event for event in named if event["type"] == "impression"]
        items = tuple(Slot(one["item_id"], place, -3.057204, "covisit") for place, one in enumerate(slots))
        first, surface = slots[0], slots[0]["surface"]
        request, now = Request(surface, first["user_id"], first["session_id"]), first["event_ts"]
        who = request.session_id, request.user_id, [slot.item_id for slot in items]
        name = signatures.sign(now, "champion", surface, *who)
        answer = Answer(name, surface, items, "champion", "0" * 16, "live", None, 9_000, 2.27)
        log.add(exposure(request, answer, now, 1, None, 1))
        for event in named:
            event["request_id"] = name
        yield request, now
