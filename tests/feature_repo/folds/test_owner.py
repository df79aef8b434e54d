"""Identity: an anonymous visit becomes known once, consent is kept, a shared device leaks nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.fold_rows import assert_equal, backfilled, streamed
from shops.small import ITEMS, START, open_home, write_raw

from feature_repo.eventlog.keys import VISITORS
from feature_repo.features.adoption import credited
from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from feature_repo.folds.owner import visible
from feature_repo.offline.build import main as features
from pipelines.stream.apply import FOLDS_OF, Held, apply, unstored, wanted

SECOND = 1_000_000
KINDS = ("product_viewed", "add_to_cart", "purchase_completed", "remove_from_cart", "impression", "click")
User = tuple[str, str]


def event(at: int, kind: str, item: str, user: str | None = None, session: str = "s", **rest: Any) -> Event:
    return Event(START + at * SECOND, kind, user, session, item, **rest)


def run(events: list[Event]) -> dict[User, Held]:
    states: dict[User, Held] = {}
    while missing := wanted(FOLDS_OF[VISITORS], states, events):
        states |= {entity: unstored(entity) for entity in missing}
    apply(FOLDS_OF[VISITORS], states, events)
    return states


def test_a_visit_that_becomes_known_gives_its_contacts_to_the_shopper_once() -> None:
    states = run(
        [
            event(0, "product_viewed", "mug"),
            event(10, "add_to_cart", "mug"),
            event(20, "product_viewed", "pen"),
            event(30, "product_viewed", "cup", "ann"),
            event(40, "product_viewed", "pan", "ann"),
        ]
    )
    ann = states["user_history", "ann"].state
    assert ann["recent_items"] == ["mug", "pen", "cup", "pan"]
    assert ann["recent_kinds"] == [2, 1, 1, 1]
    assert ann["recent_ts"][0] == START + 10 * SECOND
    assert (ann["sessions"], ann["visit_ids"]) == (1, ["s"])
    assert ann["views_30d"] == pytest.approx(3, rel=1e-4) and ann["carts_30d"] == pytest.approx(1, rel=1e-4)


def test_a_login_without_a_product_event_is_enough() -> None:
    states = run([event(0, "product_viewed", "mug"), event(5, "impression", "pen", "ann")])
    assert states["user_history", "ann"].state["recent_items"] == ["mug"]
    assert states["user_history", "ann"].ts == START + 5 * SECOND


def test_an_anonymous_event_in_a_known_visit_counts_for_its_owner_whenever_it_arrives() -> None:
    late = event(0, "product_viewed", "mug")
    known = event(10, "product_viewed", "cup", "ann")
    in_time, after = run([late, known]), run([known, late])
    for entity, held in in_time.items():
        for name, value in held.state.items():
            close = pytest.approx(value) if isinstance(value, float) else value
            assert after[entity].state[name] == close, (entity, name)


def test_events_without_consent_are_given_to_nobody_nor_is_the_visit_that_holds_them() -> None:
    states = run(
        [
            event(0, "product_viewed", "secret", consent=False),
            event(10, "product_viewed", "mug"),
            event(20, "product_viewed", "cup", "ann"),
            event(30, "product_viewed", "other secret", consent=False),
        ]
    )
    assert states["user_history", "ann"].state["recent_items"] == ["cup"]


def test_another_shopper_on_the_same_device_meets_an_empty_visit() -> None:
    events = [
        event(0, "add_to_cart", "ring", "ann"),
        event(1, "impression", "necklace", "ann", position=1),
        event(60, "product_viewed", "drill", "bob"),
    ]
    states = run(events)
    row = SESSION_CONTEXT.row(states["session_context", "s"].state)
    assert (row["owner"], row["cart_items"], row["shown_items"]) == ("bob", [], [])
    assert (row["contact_items"], row["carts"], row["started_ts"]) == (["drill"], 0, START + 60 * SECOND)
    assert states["user_history", "bob"].state["recent_items"] == ["drill"]
    assert states["user_history", "ann"].state["recent_items"] == ["ring"]


def test_a_late_event_of_an_earlier_shopper_does_not_take_the_visit_back() -> None:
    """Ann's partition lags behind Bob's: her events are applied after his."""
    before = [event(0, "product_viewed", "necklace", "ann"), event(1, "add_to_cart", "ring", "ann")]
    bob = [event(60, "add_to_cart", "drill", "bob"), event(70, "product_viewed", "saw")]
    states = run([*before[:1], *bob, *before[1:], event(80, "product_viewed", "hammer")])
    visit = states["session_context", "s"].state
    assert (visit["owner"], visit["cart_items"]) == ("bob", ["drill"])
    assert visit["contact_items"] == ["drill", "saw", "hammer"]
    assert states["user_history", "bob"].state["recent_items"] == ["drill", "saw", "hammer"]
    assert states["user_history", "ann"].state["recent_items"] == ["necklace", "ring"]


def test_what_is_done_without_consent_on_the_device_of_a_known_shopper_is_not_kept() -> None:
    states = run([event(0, "add_to_cart", "ring", "ann"), event(9, "add_to_cart", "secret", consent=False)])
    visit = states["session_context", "s"].state
    assert (visit["cart_items"], visit["contact_items"]) == (["ring"], ["ring"])
    states = run([event(0, "add_to_cart", "secret", consent=False), event(9, "add_to_cart", "ring", "ann")])
    visit = states["session_context", "s"].state
    assert (visit["cart_items"], visit["contact_items"]) == (["ring"], ["ring"])


@pytest.mark.parametrize(
    ("owner", "asks", "seen"),
    [("", None, True), ("", "ann", True), ("ann", "ann", True), ("ann", "bob", False), ("ann", None, False)],
)
def test_a_visit_is_shown_to_its_owner_alone(owner: str, asks: str | None, seen: bool) -> None:
    row = {"owner": owner}
    assert visible(row, asks) is (row if seen else None)
    assert visible(None, asks) is None


def test_credit_goes_to_one_user_and_without_a_user_to_nobody() -> None:
    fresh = SESSION_CONTEXT.new()
    assert credited(fresh, event(0, "product_viewed", "mug")) == []
    assert credited(fresh, event(0, "impression", "mug", "ann")) == []
    one = event(0, "product_viewed", "mug", "ann")
    assert credited(fresh, one) == [one]


visits = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.sampled_from(KINDS),
        st.sampled_from(ITEMS[:5]),
        st.sampled_from([None, None, "ann", "bob"]),
        st.sampled_from(["s1", "s2"]),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(visits, st.integers(0, 24))
def test_a_state_restored_between_any_two_batches_gives_the_same_rows(drawn: list[Any], cut: int) -> None:
    events = [event(*one) for one in sorted(drawn, key=lambda one: one[0])]
    straight = run(events)
    stored = {
        entity: Held(fold.state(fold.row(held.state)), held.ts)
        for entity, held in run(events[:cut]).items()
        for fold in FOLDS_OF[VISITORS]
        if fold.name == entity[0] and held.ts
    }
    while missing := wanted(FOLDS_OF[VISITORS], stored, events[cut:]):
        stored |= {entity: unstored(entity) for entity in missing}
    apply(FOLDS_OF[VISITORS], stored, events[cut:])
    assert {e: h for e, h in stored.items() if h.ts} == {e: h for e, h in straight.items() if h.ts}


def mixed_visits(seed: int, count: int) -> list[dict[str, Any]]:
    """Canonical events of visits that are anonymous, known, become known, change hands, or lack consent."""
    rng = np.random.default_rng(seed)
    found = []
    for i, ts in enumerate(np.sort(rng.integers(0, 3600 * 12, count)).tolist()):
        visit = int(rng.integers(0, 12))
        users: list[str | None] = [None, "user 1", "user 2"] if visit % 3 else [None, f"user {visit % 4}"]
        found.append(
            {
                "event_id": f"m{i:05d}",
                "event_ts": START + ts * SECOND,
                "created_ts": START + (ts + 1) * SECOND,
                "type": str(rng.choice(KINDS)),
                "user_id": users[int(rng.integers(0, len(users)))],
                "session_id": f"visit {visit}",
                "item_id": str(rng.choice(ITEMS)),
                "position": None,
                "consent": bool(visit != 5 or rng.random() < 0.8),
            }
        )
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return open_home(tmp_path, monkeypatch)


def test_the_backfill_gives_a_visit_to_its_shopper_at_the_same_instant_as_the_stream(home: Path) -> None:
    events = mixed_visits(seed=3, count=400)
    write_raw(home, events)
    features()
    assert_equal(backfilled(FOLDS_OF[VISITORS]), streamed(FOLDS_OF[VISITORS], events))
