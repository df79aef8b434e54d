"""Backfill: stored history equals the folds run event by event, and the timeline equals Feast."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.small import ITEMS, START, as_event, open_home, random_events, write_raw

from feature_repo.assemble.matrix import ACTIVITY, ItemMatrix
from feature_repo.clock import DAY_US, instant
from feature_repo.errors import DataError
from feature_repo.features.stored import FOLDS, SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Fold
from feature_repo.offline.build import main as features
from feature_repo.offline.item_counts import SPAN, decayed_sums
from feature_repo.offline.timeline import ItemTimeline, historical, matrix_at
from feature_repo.places import feature_file

EVENTS = random_events(seed=11, count=900)
CATALOGUE = [*ITEMS, "untouched"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = open_home(tmp_path_factory.mktemp("shop"), patch)
        write_raw(folder, EVENTS)
        features()
        yield folder


def replayed(fold: Fold, key: str, until: int) -> dict[str, Any] | None:
    """The state of one entity after every event up to `until`, by the fold alone."""
    state, touched = fold.new(), False
    for event in map(as_event, EVENTS):
        if event.type in fold.types and getattr(event, fold.key) == key and event.ts <= until:
            state, touched = fold.step(state, event), True
    return fold.row(state) if touched else None


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_every_stored_row_is_the_state_after_the_last_event_of_its_instant(home: Path, fold: Fold) -> None:
    rows = pq.read_table(feature_file(fold.name)).to_pylist()
    touched = {(getattr(e, fold.key), e.ts) for e in map(as_event, EVENTS) if e.type in fold.types}
    assert len(rows) == len({pair for pair in touched if pair[0] is not None})
    for row in rows[:: max(len(rows) // 60, 1)]:
        ts = (row["event_timestamp"] - instant(0)) // pd.Timedelta(microseconds=1).to_pytimedelta()
        expected = replayed(fold, row[fold.key], ts)
        assert expected is not None
        for name, value in expected.items():
            assert row[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name


def test_created_timestamp_is_when_the_last_event_of_the_row_was_learned(home: Path) -> None:
    for row in pq.read_table(feature_file("session_context")).to_pylist()[::20]:
        learned = [
            e["created_ts"]
            for e in EVENTS
            if e["session_id"] == row["session_id"]
            and instant(e["event_ts"]) <= row["event_timestamp"]
            and e["type"] != "click"
        ]
        assert row["created_timestamp"] == instant(max(learned))


def test_events_without_consent_reach_no_user_s_history_but_count_for_the_item(home: Path) -> None:
    without = {e["user_id"] for e in EVENTS if not e["consent"]}
    stored = set(pq.read_table(feature_file("user_history"))["user_id"].to_pylist())
    assert without and stored and not without & stored
    items = pq.read_table(feature_file("item_activity")).to_pylist()
    instants = {(row["item_id"], row["at"]) for row in items}
    viewed = [e for e in EVENTS if not e["consent"] and e["type"] == "product_viewed"]
    assert viewed and all((e["item_id"], e["event_ts"]) in instants for e in viewed)


def test_the_same_input_gives_the_same_bytes(home: Path) -> None:
    def digests() -> dict[str, str]:
        files = sorted((home / "data" / "features").glob("*.parquet"))
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    before = digests()
    features()
    assert digests() == before and len(before) == 4


def test_a_missing_file_of_events_is_named_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_home(tmp_path, monkeypatch)
    write_raw(folder, EVENTS[:5])
    (folder / "data/raw/impressions.parquet").unlink()
    with pytest.raises(DataError, match=r"impressions.parquet: is missing. Next: run `endcap ingest`"):
        features()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([0.0, 1.0, 0.25])), min_size=1, max_size=40).map(
        sorted
    )
)
def test_decayed_sums_equal_the_definition_over_thousands_of_half_lives(pairs: list[Any]) -> None:
    half_life = 1_000
    ts = np.array([t * half_life for t, _ in pairs], np.int64)
    weights = np.array([w for _, w in pairs])
    expected, value, at = [], 0.0, int(ts[0])
    for t, w in zip(ts.tolist(), weights.tolist(), strict=True):
        value, at = value * 2.0 ** (-(t - at) / half_life) + w, t
        expected.append(value)
    np.testing.assert_allclose(decayed_sums(ts, weights, half_life), expected, rtol=1e-9, atol=1e-250)
    assert SPAN < 1_000


def test_the_timeline_equals_feast_at_random_instants(home: Path) -> None:
    rng = np.random.default_rng(0)
    instants = np.sort(START + rng.integers(0, 12 * DAY_US, 6)).tolist()
    instants[2] = EVENTS[400]["event_ts"]  # exactly at an event
    instants.sort()
    timeline = ItemTimeline.at(CATALOGUE, instants[0])
    for now in instants:
        timeline.advance(now)
        expected = matrix_at(CATALOGUE, now)
        for name in ACTIVITY:
            np.testing.assert_array_equal(timeline.matrix.activity[name], expected.activity[name], name)
    with pytest.raises(ValueError, match="only moves forward"):
        timeline.advance(instants[0])


def test_an_item_untouched_for_a_year_is_forgotten_by_the_timeline_as_by_feast(home: Path) -> None:
    timeline = ItemTimeline.at(CATALOGUE, START)
    timeline.advance(START + 200 * DAY_US)
    assert timeline.matrix.activity["first_ts"][:12].all()
    later = START + 400 * DAY_US
    timeline.advance(later)
    assert not timeline.matrix.activity["first_ts"].any()
    assert not matrix_at(CATALOGUE, later).activity["first_ts"].any()


def test_the_matrix_knows_the_catalogue_with_unknown_as_nan(home: Path) -> None:
    matrix: ItemMatrix = matrix_at(CATALOGUE, START)
    assert np.isnan(matrix.price[0]) and matrix.price[1] == 6.0
    assert np.isnan(matrix.margin).all() and np.isnan(matrix.stock[4]) and matrix.stock[5] == 5
    assert matrix.available_from[0] == 0 and matrix.available_from[1] == START + 2 * DAY_US


def test_historical_rows_keep_the_order_of_the_questions_and_are_none_where_nothing_is_known(
    home: Path,
) -> None:
    now = START + 6 * DAY_US
    asked = pd.DataFrame(
        {
            "user_id": ["user 2", None, "nobody", "user 2"],
            "session_id": ["session 2", "session 0", None, "session 2"],
            "event_timestamp": [instant(now), instant(now), instant(now), instant(START - 1)],
        }
    )
    answers = historical(asked, "visitor")
    assert list(answers["event_timestamp"]) == list(asked["event_timestamp"])
    user, session = answers["user_history"], answers["session_context"]
    assert user[0] == replayed(USER_HISTORY, "user 2", now)
    assert session[1] == replayed(SESSION_CONTEXT, "session 0", now)
    assert user[1] is None and user[2] is None and session[2] is None
    assert user[3] is None and session[3] is None
