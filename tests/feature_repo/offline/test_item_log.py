"""Old words of items go, and no instant within the kept time tells anything else without them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.clock import instant
from feature_repo.offline import item_log
from feature_repo.offline.item_log import FIRST, Statement, dated, history, lasting, outdated, words_at

WORDS = st.dictionaries(
    st.sampled_from(["price", "stock", "deleted"]), st.integers(0, 3), min_size=1, max_size=3
)
CHANGES = st.builds(
    lambda ts, late, said: Statement(FIRST + ts, FIRST + ts + late, said), *(st.integers(1, 30),) * 2, WORDS
)
ROWS = st.builds(lambda at, said: Statement(FIRST, FIRST + at, said), st.integers(1, 60), WORDS)


@given(st.lists(CHANGES | ROWS, max_size=20), st.integers(FIRST + 1, FIRST + 40))
def test_within_the_kept_time_every_instant_tells_what_it_told(told: list[Statement], since: int) -> None:
    left = lasting(told, since)
    assert [one for one in told if any(one is held for held in left)] == left
    for end in range(since, FIRST + 95):
        assert words_at(left, end) == words_at(told, end)
    assert [row for row in history(left) if row[0] >= since] == [
        row for row in history(told) if row[0] >= since
    ]


@given(st.lists(CHANGES, max_size=40))
def test_what_is_left_of_the_old_has_a_bound(told: list[Statement]) -> None:
    assert len(lasting(told, since=FIRST + 1_000)) <= 3
    assert dated(lasting(told, since=FIRST + 1_000)) == lasting(dated(told), since=FIRST + 1_000)


def test_a_file_is_left_with_the_newest_old_word_of_each_field(tmp_path: Path) -> None:
    said = [
        ("a", 1, {"price": 2.0}),
        ("a", 5, {"price": 3.0}),
        ("b", 2, {"stock": 4}),
        ("a", 9, {"stock": 1}),
    ]
    notes = [
        {"entry": f"{ts}-0", "item_id": item, "event_ts": instant(ts), "created_ts": instant(ts)}
        | {"said": orjson.dumps(fields).decode()}
        for item, ts, fields in said
    ]
    file = tmp_path / "1.0-9.0.parquet"
    pq.write_table(pa.Table.from_pylist(notes, item_log.SCHEMA), file)
    ((found, left, gone),) = outdated(tmp_path, [file], since=7)
    assert found == file and gone == 1 and left["entry"].to_pylist() == ["5-0", "2-0", "9-0"]
    assert not list(outdated(tmp_path, [file], since=4))
