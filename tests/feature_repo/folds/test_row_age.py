"""A row that is too old is gone: its next event starts it anew, in the stream as in the backfill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shops.fold_rows import assert_equal, backfilled, streamed
from shops.small import ITEMS, START, as_event, open_home, random_events, write_raw

from feature_repo.clock import DAY_US
from feature_repo.features.stored import FOLDS, ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Fold
from feature_repo.offline.build import main as features
from pipelines.stream.apply import Entity, Held, apply, unstored, wanted


def with_pauses(seed: int, count: int) -> list[dict[str, Any]]:
    """Random events in four bunches: days apart, and more than a year apart."""
    events = random_events(seed, count, days=6)
    days = np.array([0, 4, 420, 429])[np.arange(count) * 4 // count]
    for event, pause in zip(events, days.tolist(), strict=True):
        event["event_ts"] += pause * DAY_US
        event["created_ts"] += pause * DAY_US
    return events


def test_the_backfill_equals_the_stream_over_pauses_longer_than_a_row_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = with_pauses(seed=8, count=500)
    write_raw(open_home(tmp_path, monkeypatch), events)
    features()
    stored = backfilled(FOLDS)
    assert_equal(stored, streamed(FOLDS, events))
    firsts = {
        (name, key): {row["first_ts"] for (n, k, _), row in stored.items() if (n, k) == (name, key)}
        for name, key, _ in stored
        if name == ITEM_ACTIVITY.name
    }
    assert firsts.keys() == {(ITEM_ACTIVITY.name, item) for item in ITEMS}
    assert all(len(instants) >= 2 for instants in firsts.values())  # the year's pause began each anew


@pytest.mark.parametrize("fold", [USER_HISTORY, SESSION_CONTEXT, ITEM_ACTIVITY], ids=lambda fold: fold.name)
def test_a_row_of_exactly_the_greatest_age_goes_on_and_one_microsecond_more_starts_anew(fold: Fold) -> None:
    state, limit = {"a": "state"}, fold.max_age_days * DAY_US
    assert fold.resumed(state, START, START + limit) is state
    assert fold.resumed(state, START, START + limit + 1) == fold.new()


def test_an_event_from_before_the_row_started_anew_changes_nothing() -> None:
    events = [as_event(event) for event in random_events(1, 2)]
    first = events[0]._replace(type="product_viewed", session_id="s", item_id="mug", ts=START)
    later = first._replace(ts=START + 5 * DAY_US, item_id="pen")
    states: dict[Entity, Held] = {}
    for one in ([later], [first]):
        while missing := wanted(FOLDS, states, one):
            states |= {entity: unstored(entity) for entity in missing}
        apply(FOLDS, states, one)
    visit = states[SESSION_CONTEXT.name, "s"]
    assert (visit.state["contact_items"], visit.ts) == (["pen"], later.ts)
