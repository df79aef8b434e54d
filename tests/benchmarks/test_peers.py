"""The peers of benchmarks/quality.py: each checked by hand, and none may learn from what else is asked."""

from __future__ import annotations

import numpy as np
import pytest
from peers.contract import Mask, Past, Peer, Rows, Scores, Settings, Visits, best, combinations
from peers.covisits import Covisits, Popularity
from peers.factors import Als
from peers.knn import Vsknn
from peers.linear import Ease, Slist
from peers.roster import PEERS, choose
from peers.sasrec import Sasrec

from pipelines.protocol.metrics import ndcg

FIVE = Visits.of([[0, 1], [0, 2], [1, 2, 3], [3, 4], [0, 1, 4]], 5)
FITS: dict[str, Settings] = {
    "SASRec": {"loss": "softmax", "dropout": 0.2, "epochs": 2},
    "BPR": {"factors": 32, "regularization": 0.01, "learning_rate": 0.05, "iterations": 20},
}


def first(peer: type[Peer], kind: str) -> Settings:
    """The first setting of a grid."""
    return next(combinations(getattr(peer, kind)))


def fitted(name: str, visits: Visits, seed: int = 1) -> Peer:
    peer = PEERS[name]()
    peer.fit(visits, seed, **(FITS.get(name) or first(PEERS[name], "fits")))
    return peer


def two_halves(visits: int = 300, n: int = 12) -> Visits:
    """Each visit walks through items of one parity."""
    rng = np.random.default_rng(0)
    half = np.arange(0, n, 2)
    return Visits.of([rng.permutation(half)[:4] + visit % 2 for visit in range(visits)], n)


def test_v_sknn_on_five_visits() -> None:
    """History 1, 0: weights 1/2 and 1. Visits 4 (both items), 1 and 0 share 0; 0 and 2 share 1."""
    peer = Vsknn()
    peer.fit(FIVE, 0)
    found = peer.scores(np.array([1, 0]), k=3, sample=100, decay="div", idf=False)
    # similarity: visits 4 and 0 (1/2 + 1) / 2 = .75, visit 1 .5, visit 2 .25 (fourth, so no neighbour);
    # all three share 0, the newest item: match 1.
    assert found.tolist() == [2.0, 1.5, 0.5, 0.0, 0.75]


def test_v_sknn_takes_the_newest_visits_and_weighs_rare_items_more() -> None:
    peer = Vsknn()
    peer.fit(FIVE, 0)
    newest = peer.scores(np.array([0]), k=3, sample=1, decay="div", idf=False)
    assert np.flatnonzero(newest).tolist() == [0, 1, 4]  # visit 4 alone
    weighed = peer.scores(np.array([0]), k=3, sample=1, decay="div", idf=True)
    assert weighed == pytest.approx(newest * np.log(5 / np.array([3, 3, 2, 2, 2])))


def test_co_visits_on_three_items() -> None:
    peer = Covisits()
    peer.fit(Visits.of([[0, 1, 2]], 3), 0, window=2, backward=0.5, damping=0.0)
    assert peer.scores(np.array([0]), decay=0.5).tolist() == pytest.approx([0, 1, 0.8])
    assert peer.scores(np.array([0, 1]), decay=0.5).tolist() == pytest.approx([0.5, 0.5, 1 + 0.4])


def test_popularity_counts_the_newest_share() -> None:
    peer = Popularity()
    peer.fit(FIVE, 0, share=0.4)
    assert peer.scores(np.array([0])).tolist() == [1, 1, 0, 1, 2]


def test_ease_is_its_closed_form() -> None:
    peer = Ease()
    peer.fit(FIVE, 0, regularization=20.0)
    x = FIVE.matrix().toarray().astype(float)
    inverse = np.linalg.inv(x.T @ x + 20 * np.eye(5))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    assert peer.scores(np.array([1, 0]), decay=0.5) == pytest.approx(weights[0] + 0.5 * weights[1], abs=1e-5)


def test_slist_solves_its_least_squares() -> None:
    """With alpha 0 the table is the ridge regression of futures on pasts: its gradient is zero."""
    from peers.linear import splits

    peer = Slist()
    peer.fit(FIVE, 0, alpha=0.0, regularization=10.0, spread=2.0)
    past, future = (side.toarray().astype(float) for side in splits(FIVE, 2.0))
    table = np.array([peer.scores(np.array([row]), memory=1.0) for row in range(5)])
    assert past.T @ (past @ table - future) + 10.0 * table == pytest.approx(np.zeros((5, 5)), abs=1e-4)


def test_als_folds_in_a_visit_as_it_was_fitted() -> None:
    """The solution for the history makes the gradient of the weighted squared loss zero."""
    peer = Als()
    peer.fit(two_halves(), 1, factors=32, regularization=10.0, alpha=20.0)
    items, rows = peer._items, np.array([0, 2])
    scores = peer.scores(rows)
    weight, wanted = np.ones(12), np.zeros(12)
    weight[rows], wanted[rows] = 20.0, 1.0
    user = np.linalg.lstsq(items, scores, rcond=None)[0]
    gradient = items.T @ (weight * (items @ user - wanted)) + 10.0 * user
    assert gradient == pytest.approx(np.zeros(32), abs=1e-3)


@pytest.mark.parametrize("name", [name for name in PEERS if name != "popularity"])
def test_a_peer_learns_which_half_a_visit_is_in(name: str) -> None:
    """With the settings that this very measure chooses of its grid."""
    visits, peer = two_halves(), PEERS[name]()
    found = choose(peer, visits, 1, halves, (True,))
    peer.fit(visits, 1, **found.fit)
    assert halves(peer, found.ask) == found.reached > 0.99


def halves(peer: Peer, ask: Settings) -> float:
    """NDCG@4 of the rest of the half, over histories of two items."""
    settings = {name: value for name, value in ask.items() if name != "earlier"}
    reached = []
    for one in range(12):
        other = (one + 2) % 12
        rest = frozenset(range(one % 2, 12, 2)) - {one, other}
        eligible = np.isin(np.arange(12), [one, other], invert=True)
        found = best(peer.scores(np.array([one, other]), **settings), np.zeros(12), eligible, 4)
        reached.append(ndcg(found.tolist(), rest, 4))
    return float(np.mean(reached))


def asked() -> list[Past]:
    rng = np.random.default_rng(5)
    histories = [rng.permutation(12)[: rng.integers(1, 6)] for _ in range(40)]
    return [Past(rows, np.ones(len(rows), np.bool_)) for rows in histories]


@pytest.mark.parametrize("name", PEERS)
def test_an_answer_does_not_depend_on_what_else_is_asked(name: str) -> None:
    """Rows in order, shuffled, or one alone of a freshly fitted peer: equal to the last bit."""
    visits, questions = two_halves(), asked()
    peer, ask = fitted(name, visits), first(PEERS[name], "asks")
    in_order = [peer.scores(past.rows, **ask) for past in questions]
    for number in np.random.default_rng(0).permutation(len(questions)):
        assert np.array_equal(peer.scores(questions[number].rows, **ask), in_order[number])
    again = fitted(name, visits)
    assert np.array_equal(again.scores(questions[-1].rows, **ask), in_order[-1])


@pytest.mark.parametrize("name", [name for name in PEERS if PEERS[name].random])
def test_a_seed_decides_what_chance_decides(name: str) -> None:
    visits, ask = two_halves(), first(PEERS[name], "asks")
    one, same, other = (fitted(name, visits, seed).scores(np.array([3]), **ask) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_the_padding_of_a_batch_is_nobodys_neighbour() -> None:
    """A visit trained or asked beside longer ones has the same output at its places."""
    import torch

    peer = Sasrec()
    peer._begin(two_halves(), 1, "softmax", 0.2)
    peer._net.eval()
    ids = torch.tensor([[0, 0, 0, 3, 5], [1, 2, 3, 4, 5]])
    with torch.inference_mode():
        together, alone = peer._net(ids)[0, -2:], peer._net(ids[:1, -2:])[0]
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_future_of_a_visit_does_not_change_its_past() -> None:
    import torch

    peer = Sasrec()
    peer._begin(two_halves(), 1, "softmax", 0.2)
    peer._net.eval()
    with torch.inference_mode():
        one, other = (peer._net(torch.tensor([[4, 7, last]]))[0, :2] for last in (1, 9))
    assert torch.allclose(one, other, atol=1e-6)


def test_equal_scores_are_listed_by_popularity_among_the_eligible() -> None:
    scores: Scores = np.array([0.0, -np.inf, 1.0, 0.0, 0.0])
    eligible: Mask = np.array([True, True, True, True, False])
    listed: Rows = best(scores, np.array([1.0, 9.0, 0.0, 2.0, 8.0]), eligible, 4)
    assert listed.tolist() == [2, 3, 0, 1]


def test_the_setting_that_validation_likes_best_is_chosen() -> None:
    chosen = choose(
        Popularity(), FIVE, 1, lambda peer, ask: -abs(peer.scores(np.array([0])).sum() - 5), (True,)
    )
    assert chosen.fit == {"share": 0.3} and chosen.tried == 5  # the newest two visits hold five contacts
