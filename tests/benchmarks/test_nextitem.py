"""Next items of lists of ids, as benchmarks/quality.py asks them of diginetica."""

from __future__ import annotations

from pathlib import Path

import nextitem
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nextitem import Asked, places, questions, read, reciprocal, run, visits_of
from peers.contract import Visits, combinations
from peers.covisits import Covisits
from peers.roster import PEERS

from feature_repo.errors import DataError

CHAIN = [[1, 2, 3, 4, 5]] * 30  # whoever sees n goes on to n + 1


def write(folder: Path) -> None:
    pq.write_table(pa.table({"items": CHAIN}), folder / "train_sessions.parquet")
    test = {"prefix": [[3, 4], [3], [1]], "next_item": [5, 4, 2]}
    pq.write_table(pa.table(test), folder / "test_prefixes.parquet")


def test_prefixes_of_one_visit_are_drawn_together() -> None:
    prefixes = [np.array(p) for p in ([1, 2, 3], [1, 2], [1], [4, 5], [4], [6, 7], [5])]
    assert visits_of(prefixes).tolist() == [0, 0, 0, 1, 1, 2, 3]


def test_every_prefix_asks_for_the_item_that_came_next() -> None:
    asked = questions(Visits.of([[0, 1], [2, 3, 2]], 4), 1)
    assert [prefix.tolist() for prefix in asked.prefixes] == [[2], [2, 3]]
    assert asked.wanted.tolist() == [3, 2] and asked.visits.tolist() == [1, 1]


def test_a_place_counts_from_one_and_the_prefix_stays_eligible() -> None:
    peer = Covisits()
    peer.fit(Visits.of([[0, 1, 0], [0, 1, 0], [0, 2]], 3), 0, window=1, backward=0.5, damping=0.0)
    asked = Asked([np.array([1]), np.array([0])], np.array([0, 2]), np.array([0, 1]))
    found, _ = places(peer, {"decay": 0.5, "earlier": True}, asked, np.ones(3))
    assert found.tolist() == [1, 2]  # back to 0 from 1; from 0 item 1 comes before item 2
    assert reciprocal(found).tolist() == [1.0, 0.5]


def test_a_chain_is_learned_and_reported(tmp_path: Path) -> None:
    write(tmp_path)
    visits, asked = read(tmp_path)
    result = run("co-visits", visits, asked, 20, [1])
    assert result.values["p_at_20"].tolist() == [[1.0, 1.0, 1.0]]
    assert result.values["mrr_at_20"].mean() > 0.8
    assert result.told["tried"] == len([*combinations(Covisits.fits), 0] * 3) - 3


@pytest.mark.parametrize("name", ["popularity", "V-SKNN", "co-visits", "EASE", "SLIST"])
def test_a_row_is_answered_the_same_without_its_neighbours(name: str, tmp_path: Path) -> None:
    """Neighbouring rows are prefixes of one visit: a row's input holds the answer of the next."""
    write(tmp_path)
    visits, asked = read(tmp_path)
    peer = PEERS[name]()
    peer.fit(visits, 1, **next(combinations(peer.fits)))
    ask = next(combinations(peer.asks)) | {"earlier": True}
    together, _ = places(peer, ask, asked, visits.counts())
    for row in (2, 0, 1):
        alone = Asked([asked.prefixes[row]], asked.wanted[[row]], asked.visits[[row]])
        assert places(peer, ask, alone, visits.counts())[0].tolist() == [together[row]]


def test_a_missing_file_is_named_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"train_sessions\.parquet: is missing\. Next: name its folder by --data"
    ):
        nextitem.read(tmp_path)
