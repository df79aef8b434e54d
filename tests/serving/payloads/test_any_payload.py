"""Whatever a body holds: it is dropped, refused by name, or an event that the schema allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops.effort import effort
from shops.mutants import mutant
from shops.payloads import payloads

from feature_repo.clock import DAY_US, instant
from feature_repo.errors import EventError
from feature_repo.events import check_event
from feature_repo.params import load
from serving.http.ingress import Clock, canonical
from serving.payloads import gorse, metarank
from serving.payloads.payload import MAX_LINES, Dropped, System
from serving.payloads.terms import Terms

NOW = int((datetime.now(UTC)).timestamp()) * 1_000_000
CLOCK = Clock(NOW, NOW, NOW - 7 * DAY_US, NOW + 300_000_000)
ALL = payloads(datetime.now(UTC) - timedelta(hours=1))
READERS = {name: (read, body) for name, (_, read, body) in ALL.items()}
TERMS = load("compat", Terms)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
FREELY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def accepted(read: System, body: Any) -> list[dict[str, Any]]:
    """Canonical events of a body that the door would take; each is checked by the schema once more."""
    found = []
    read.sent_at(body)
    for one in read.events(body):
        try:
            events = read.translate(one, TERMS)
        except Dropped:
            continue
        for event in events:
            try:
                found.append(canonical(event, CLOCK))
            except EventError:
                continue
    for event in found:
        at = {"event_ts": instant(event["event_ts"]), "created_ts": None}
        check_event({**event, **at}, instant(CLOCK.latest))
        orjson.dumps(event)
    return found


@pytest.mark.parametrize("name", READERS)
def test_a_body_as_documented_is_accepted_whole(name: str) -> None:
    read, body = READERS[name]
    assert accepted(read, body)


@FREELY
@given(name=st.sampled_from(sorted(READERS)), seed=st.integers(0, 2**32))
def test_a_mutated_body_is_translated_or_dropped(name: str, seed: int) -> None:
    read, body = READERS[name]
    accepted(read, mutant(body, seed))
    accepted(read, mutant(body, seed))


@FREELY
@given(name=st.sampled_from(sorted(READERS)), body=ANY)
def test_any_json_at_all_is_translated_or_dropped(name: str, body: Any) -> None:
    read = READERS[name][0]
    for whole in (body, {"events": body}, {"batch": body}, {"data": body, "schema": "x"}, [body, body]):
        accepted(read, whole)
    gorse.item_of(body)
    metarank.item_of(body)


@pytest.mark.parametrize("odd", [1e308, float("nan"), 10**40, "9" * 25, "\ud83d", True, [], {}])
def test_a_time_that_is_none_is_refused_and_breaks_nothing(odd: Any) -> None:
    assert accepted(READERS["metarank"][0], {**READERS["metarank"][1][3], "timestamp": odd}) == []
    assert metarank.item_of({"event": "item", "item": "i", "timestamp": odd}) == {"item_id": "i"}
    told = gorse.item_of({"ItemId": "i", "Timestamp": odd}) or {}
    orjson.dumps(told["item_id"])


def test_what_an_event_of_many_products_costs_grows_with_them_and_ends() -> None:
    """An event is translated in one go: while it is, nobody else is served."""
    hit = {**READERS["ga4"][1], "events": [{"name": "purchase", "params": {}}]}
    items = [{"item_id": f"SKU-{n}", "item_name": "x" * 100, "index": n} for n in range(MAX_LINES + 1)]

    def translate(lines: int) -> None:
        hit["events"][0]["params"] = {"items": items[:lines]}
        assert len(accepted(READERS["ga4"][0], hit)) == lines

    few = MAX_LINES // 10
    assert effort(lambda: translate(MAX_LINES)) < 40 * effort(lambda: translate(few))
    hit["events"][0]["params"] = {"items": items}
    assert accepted(READERS["ga4"][0], hit) == []
