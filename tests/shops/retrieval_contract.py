"""What every retrieval model must do, whatever it is made of: inherit `RetrievalContract`, give it `fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.dataset import Contacts

Scorer = Callable[[Sequence[Sequence[int]]], np.ndarray]  # histories, newest last -> scores (q, items)
ITEMS = 24
SECOND = 1_000_000


def contacts_of(sessions: Sequence[Sequence[int]], owners: Sequence[int] | None = None) -> Contacts:
    """Views of catalogue rows: one list per session, a view every 10 s, an hour between sessions.

    Sessions of one owner must stand together, owners ascending; without `owners` each session is its own.
    """
    owners = range(len(sessions)) if owners is None else owners
    rows = [
        (item, s, owner, (3600 * s + 10 * place) * SECOND)
        for s, (session, owner) in enumerate(zip(sessions, owners, strict=True))
        for place, item in enumerate(session)
    ]
    item, session, owner, ts = (np.array(column) for column in zip(*rows, strict=True))
    return Contacts(
        item=item.astype(np.int32),
        kind=np.ones(len(item), np.int8),
        ts=ts.astype(np.int64),
        session=session.astype(np.int32),
        owner=owner.astype(np.int32),
        context=np.tile(np.array([1, 1, 1]), (len(item), 1)),
    )


def checkerboard(items: int = ITEMS, rounds: int = 1, seed: int = 0) -> list[list[int]]:
    """Session s contacts, in random order, every item of the parity of s but item s itself.

    >>> sorted(checkerboard(6)[2])
    [0, 4]
    """
    rng = np.random.default_rng(seed)
    return [
        rng.permutation([i for i in range(s % 2, items, 2) if i != s]).tolist()
        for _ in range(rounds)
        for s in range(items)
    ]


class RetrievalContract:
    """Inherited by the test of every model."""

    rounds = 1  # of the checkerboard that the model is fitted on

    def fit(self, contacts: Contacts, items: int) -> Scorer:
        """Fit the model on contacts with a catalogue of `items` rows."""
        raise NotImplementedError

    def test_the_item_withheld_from_a_checkerboard_is_the_best_new_one(self) -> None:
        sessions = checkerboard(rounds=self.rounds)
        scores = self.fit(contacts_of(sessions), ITEMS)(sessions[:ITEMS])
        assert scores.shape == (ITEMS, ITEMS)
        for withheld, (session, row) in enumerate(zip(sessions, scores, strict=False)):
            row[session] = -np.inf
            assert row.argmax() == withheld

    def test_the_items_like_one_item_have_its_colour(self) -> None:
        scores = self.fit(contacts_of(checkerboard(rounds=self.rounds)), ITEMS)([[i] for i in range(ITEMS)])
        for item, row in enumerate(scores):
            row[item] = -np.inf
            assert set(np.argsort(-row)[:8] % 2) == {item % 2}

    def test_the_same_input_gives_the_same_numbers(self) -> None:
        sessions = checkerboard(12, rounds=self.rounds)
        first, second = (self.fit(contacts_of(sessions), 12)(sessions) for _ in range(2))
        assert first.tobytes() == second.tobytes()

    def test_an_item_without_contacts_and_an_empty_history_give_finite_scores(self) -> None:
        scorer = self.fit(contacts_of(checkerboard(12, rounds=self.rounds)), 13)
        scores = scorer([[0, 2], [12], []])
        assert scores.shape == (3, 13)
        assert np.isfinite(scores).all()
