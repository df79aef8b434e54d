"""One event, one identity: a resend has it, however it travelled; nothing else that anybody sends does."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from feature_repo.events import NAMES, TYPES, identity
from pipelines.stream.apply import parse
from serving.http.ingress import Clock, canonical

pytestmark = pytest.mark.fault
texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20)
optional = {
    "user_id": texts,
    "request_id": texts,
    "query": texts,
    "slot": st.integers(0, 10_000),
    "quantity": st.integers(1, 1_000_000),
    "price": st.floats(0, 1e9) | st.integers(0, 10**9),
    "consent": st.booleans(),
    "event_ts": st.integers(1_600_000_000_000_000, 1_700_000_000_000_000),
}
sent = st.fixed_dictionaries(
    {"event_id": texts, "session_id": texts, "item_id": texts, "type": st.sampled_from(TYPES)},
    optional=optional,
)
NOW = 1_750_000_000_000_000


def arrived(event: dict[str, Any], now: int) -> dict[str, Any]:
    """What the door writes of an event that arrives at `now` (us)."""
    return canonical(json.loads(json.dumps(event)), Clock(now, now, 0, now))


@given(event=sent, later=st.integers(0, 86_400_000_000))
def test_a_resend_has_the_same_identity_at_the_door_and_in_the_stream(
    event: dict[str, Any], later: int
) -> None:
    first, second = arrived(event, NOW), arrived(event, NOW + later)
    assert identity(first) == identity(second)
    assert parse(orjson.dumps(first)).identity == parse(orjson.dumps(second)).identity == identity(first)


@given(event=sent, change=st.sampled_from(sorted({*NAMES} - {"event_ts", "created_ts"})), other=st.data())
def test_whatever_else_differs_is_another_event(event: dict[str, Any], change: str, other: Any) -> None:
    values = {"type": st.sampled_from(TYPES), **optional}.get(change, texts)
    changed = event | {change: other.draw(values)}
    assume(changed[change] != event.get(change, change == "consent" or None))
    assume(change != "position")  # a number, as quantity
    assert identity(arrived(changed, NOW)) != identity(arrived(event, NOW))
