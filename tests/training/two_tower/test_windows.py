"""Windows of contacts: which query each position answers, and the softmax that scores the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.retrieval_contract import contacts_of

from feature_repo.events import HISTORY
from training.two_tower.negatives import PopularityNegatives, full_softmax_loss, sampled_softmax_loss
from training.two_tower.windows import Batch, Runs, batches, merge_repeats

HOUR_S = 3600


def windows(runs: Runs, forget_rate: float = 0.0, seed: int = 0, tokens: int = 256) -> list[Batch]:
    rng = np.random.default_rng(seed)
    return list(batches(runs, rng, tokens=tokens, forget_rate=forget_rate))


def answers(found: list[Batch]) -> list[tuple[int, int]]:
    """(newest item or None as -1, target) of every position that has a target."""
    return sorted(
        (int(item) - 1, int(target))
        for batch in found
        for item, target in zip(batch.items.ravel(), batch.target.ravel(), strict=True)
        if target >= 0
    )


def test_every_position_aims_at_the_next_item_not_contacted_before() -> None:
    runs = merge_repeats(contacts_of([[3, 5, 3, 8]]))
    assert answers(windows(runs)) == [(-1, 3), (3, 5), (3, 8), (5, 8)]


def test_an_item_of_an_earlier_visit_is_an_answer_and_one_of_this_visit_is_none() -> None:
    runs = merge_repeats(contacts_of([[3, 5], [3, 5, 3, 8]], owners=[0, 0]))
    (batch,) = windows(runs)
    assert batch.items.tolist() == [[0, 4, 6, 4, 6, 4, 9]]
    assert batch.target.tolist() == [[3, 5, 3, 5, 8, 8, -1]]
    position, row = batch.barred(batch.target >= 0)
    assert {p: sorted(row[position == p].tolist()) for p in range(6)} == {
        0: [],
        1: [3],
        2: [],
        3: [3],
        4: [3, 5],
        5: [3, 3, 5],
    }


def test_where_revisits_count_the_next_contact_is_the_answer_whatever_it_is() -> None:
    runs = merge_repeats(contacts_of([[3, 3, 5, 3]]), revisits=True)
    found = list(batches(runs, np.random.default_rng(0), tokens=64, forget_rate=0.0, revisits=True))
    assert answers(found) == [(-1, 3), (3, 3), (3, 5), (5, 3)]
    assert not any(batch.behind.any() for batch in found)


def test_view_cart_purchase_of_one_item_is_one_run_with_two_faces() -> None:
    contacts = contacts_of([[4, 4, 4, 6]])
    contacts.kind[:] = [1, 2, 3, 1]
    runs = merge_repeats(contacts)
    assert runs.item.tolist() == [4, 6]
    assert (runs.first_kind.tolist(), runs.last_kind.tolist()) == ([1, 1], [3, 1])
    assert (runs.last_ts - runs.first_ts).tolist() == [20_000_000, 0]
    faces = {
        (int(b.kinds[0, -1]), float(b.wait[0, -1]) <= 30) for s in range(20) for b in windows(runs, seed=s)
    }
    assert faces == {(1, True)}  # the newest run is the single view of 6
    bought = {int(b.kinds[0, -2]) for s in range(20) for b in windows(runs, seed=s)}
    assert bought == {1, 3}


def test_forgetting_makes_every_visit_a_first_one() -> None:
    runs = merge_repeats(contacts_of([[1, 2], [3, 4], [5, 6]], owners=[0, 0, 1]))
    remembered, forgotten = answers(windows(runs)), answers(windows(runs, forget_rate=1.0))
    assert remembered == [(-1, 1), (-1, 5), (1, 2), (2, 3), (3, 4), (5, 6)]
    assert forgotten == [(-1, 1), (-1, 3), (-1, 5), (1, 2), (3, 4), (5, 6)]


def test_a_query_of_the_next_visit_waits_for_it_and_has_its_context() -> None:
    contacts = contacts_of([[1, 2], [3]], owners=[0, 0])
    contacts.context[2] = [2, 7, 9]
    (batch,) = windows(merge_repeats(contacts))
    assert batch.items.tolist() == [[0, 2, 3, 4]]
    assert batch.wait[0, 2] == HOUR_S - 10 and batch.wait[0, 1] <= 10
    assert batch.context[0, :3].tolist() == [[1, 1, 1], [1, 1, 1], [2, 7, 9]]
    assert batch.ages[0].tolist() == [0, HOUR_S, HOUR_S - 10, 0]


histories = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=45), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(histories, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_every_run_stands_in_exactly_one_window_of_at_most_20(
    sessions: list[list[int]], forget_rate: float, seed: int
) -> None:
    runs = merge_repeats(contacts_of(sessions, owners=[s // 2 for s in range(len(sessions))]))
    found = windows(runs, forget_rate, seed, tokens=64)
    shown = sorted(int(item) - 1 for batch in found for item in batch.items.ravel() if item)
    assert shown == sorted(runs.item.tolist())
    for batch in found:
        assert batch.items.shape[1] <= HISTORY
        for items, target, behind in zip(batch.items, batch.target, batch.behind, strict=True):
            for place in np.flatnonzero(target >= 0):
                assert target[place] + 1 not in items[behind[place]]
            assert not items[: np.flatnonzero(items)[0]].any()  # left padded


def test_negatives_are_drawn_by_popularity_and_never_unmet() -> None:
    counts = np.array([16, 0, 1, 81])
    negatives = PopularityNegatives(counts, 20_000, np.random.default_rng(0))
    rows, log_q = negatives.draw()
    share = np.bincount(rows, minlength=4) / len(rows)
    assert share == pytest.approx(np.array([8, 0, 1, 27]) / 36, abs=0.02)
    assert np.exp(log_q[rows == 2][0]) == pytest.approx(20_000 / 36, rel=1e-4)


def test_every_item_drawn_once_gives_the_full_softmax() -> None:
    torch.manual_seed(0)
    queries, vectors, targets = torch.randn(7, 5), torch.randn(11, 5), torch.arange(7)
    hits = (torch.arange(11)[None] == targets[:, None]).nonzero(as_tuple=True)
    sampled = sampled_softmax_loss(queries, vectors[targets], vectors, torch.zeros(11), hits, 3.0)
    assert sampled.item() == pytest.approx(full_softmax_loss(queries, vectors, targets, 3.0).item(), rel=1e-5)


def test_the_correction_makes_the_sampled_loss_that_of_the_full_softmax() -> None:
    torch.manual_seed(1)
    counts = np.array([1000] * 5 + [3] * 195)
    queries, vectors, targets = torch.randn(4, 8) / 3, torch.randn(200, 8), torch.tensor([0, 1, 50, 60])
    vectors[:5] += 2 * queries.mean(0) / queries.mean(0).norm()  # popular and liked
    full = full_softmax_loss(queries, vectors, targets, 1.0).item()
    rows, log_q = PopularityNegatives(counts, 50_000, np.random.default_rng(2)).draw()
    drawn = torch.from_numpy(rows)
    hits = (drawn[None] == targets[:, None]).nonzero(as_tuple=True)

    def loss(correction: torch.Tensor) -> float:
        return sampled_softmax_loss(queries, vectors[targets], vectors[drawn], correction, hits, 1.0).item()

    plain = torch.full((len(rows),), float(np.log(len(rows) / 200)))  # as if all were drawn equally often
    assert loss(torch.from_numpy(log_q)) == pytest.approx(full, abs=0.02)
    assert abs(loss(plain) - full) > 0.1
