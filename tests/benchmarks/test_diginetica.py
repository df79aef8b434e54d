"""The whole on made-up lists of ids: a run from end to end, each prefix for itself, the exact softmax."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from idsources import OfPeer, Source, Table, chosen, ranks
from idtower import ExactSoftmax, IdTower, contacts_of, histories, params, trained
from listwise import MISSED, Asking, Lists, fit_net, union
from nextitem import questions
from peers.contract import Visits
from peers.knn import Vsknn
from torch.nn import functional as F

from training.collaborative.covisit import fit_covisit

ROOT = Path(__file__).resolve().parents[2]
ITEMS = 40


def ring(visits: int, seed: int = 0) -> Visits:
    """Visits that go round a ring of items, from any place on, and sometimes step back."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random((visits, 6)) < 0.2, -1, 1)
    return Visits.of(((rng.integers(ITEMS, size=(visits, 1)) + steps.cumsum(1)) % ITEMS).tolist(), ITEMS)


def small(visits: Visits, tmp: Path | None = None, refit: int = 1) -> list[IdTower]:
    setting = params(dim=16, batch=128, epochs=2, threads=1)
    return [
        IdTower(towers, setting.scale) for _, _, towers in trained(visits, len(visits), setting, refit, tmp)
    ]


def benchmark(*options: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "diginetica.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=True)
    return done.stdout


def test_without_the_data_it_is_skipped_and_says_so(tmp_path: Path) -> None:
    assert benchmark("--data", str(tmp_path / "none")).startswith(f"skipped: {tmp_path / 'none'} is absent")


def test_sources_and_the_whole_are_told_with_what_they_cost(tmp_path: Path) -> None:
    visits = ring(2000)
    sessions = [(100 + visits[v]).tolist() for v in range(len(visits))]
    pq.write_table(pa.table({"items": sessions}), tmp_path / "train_sessions.parquet")
    asked = {"prefix": [[100, 101], [777], [110]], "next_item": [102, 100, 888]}
    pq.write_table(pa.table(asked), tmp_path / "test_prefixes.parquet")
    small = ("--epochs", "4", "--refit", "1", "--dim", "16", "--batch", "128", "--tried", "50")
    told = benchmark("--data", str(tmp_path), *small)
    rows = {cells[1].strip(" *"): cells for line in told.splitlines() if len(cells := line.split("|")) > 8}
    assert {"endcap, whole", "own tower", "own co-visits", "own next", "own EASE", "SLIST", "V-SKNN"} < set(
        rows
    )
    assert float(rows["endcap, whole"][5]) > 0.6  # validation: four of five go on, one of five goes back
    assert float(rows["endcap, whole"][3]) < 0.67  # of the test's three, one names what nobody has met
    assert re.search(r"\| in all \| \d+ \| \d+ \| [\d.]+ \|", told)


def test_a_prefix_is_answered_the_same_alone_and_in_any_order() -> None:
    """Neighbouring rows are prefixes of one visit: a row's input holds the answer of the next."""
    visits = ring(300)
    asked = questions(visits, 290)
    tower, peer = small(visits)[-1], Vsknn()
    peer.fit(visits, 0)
    settings = chosen(visits, asked)
    covisits = Table(fit_covisit(contacts_of(visits), ITEMS, settings.covisit[0]), settings.covisit[1])
    asking = Asking({"tower": tower, "knn": OfPeer(peer, settings.knn), "covisits": covisits}, visits)
    lists, alone = asking.all(asked)
    net = fit_net(lists, seed=1)
    together = lists.ranks(net.predict(lists.columns))
    for row in np.random.default_rng(0).permutation(len(asked.wanted)):
        one, by_source = asking.lists([asked.prefixes[row]], asked.wanted[[row]])
        assert one.ranks(net.predict(one.columns)).tolist() == [together[row]]
        assert {name: rank[row] for name, rank in alone.items()} == {n: r[0] for n, r in by_source.items()}


def test_the_exact_softmax_is_the_cross_entropy_but_for_rounding() -> None:
    torch.manual_seed(0)
    queries, vectors = (torch.randn(n, 32, requires_grad=True) for n in (50, 9000))
    targets = torch.randint(9000, (50,))
    found = []
    for loss in (
        lambda q, v: F.cross_entropy(14 * q @ v.T, targets),
        lambda q, v: ExactSoftmax.apply(q, v, targets, 14.0),
    ):
        value = loss(F.normalize(queries, dim=1), F.normalize(vectors, dim=1))
        found.append((value, *torch.autograd.grad(value, (queries, vectors))))
    for exact, ours in zip(*found, strict=True):
        assert torch.linalg.vector_norm(exact - ours) < 0.02 * torch.linalg.vector_norm(exact)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    visits = ring(100)
    whole = small(visits, tmp_path)[-1]
    (tmp_path / "refitted_1.pt").unlink()
    (tmp_path / "learned_2.pt").unlink()
    resumed = small(visits, tmp_path)[-1]
    prefixes = [visits[0], visits[1][:2]]
    assert np.array_equal(whole.scores(prefixes), resumed.scores(prefixes))


def test_a_history_holds_the_newest_distinct_items_where_they_stand_last() -> None:
    row = histories([np.array([4, 7, 4])])[0]
    assert row[-2:].tolist() == [8, 5] and not row[:-2].any()


class Fixed:
    """Scores by table, a row a prefix's first item."""

    def __init__(self, scores: list[list[float]]) -> None:
        self._scores = np.array(scores, np.float32)

    def scores(self, prefixes: list[np.ndarray]) -> np.ndarray:
        return self._scores[[prefix[0] for prefix in prefixes]]


def test_candidates_are_the_best_of_every_source_once() -> None:
    of, item = union(np.array([[[3, 2, 1, 0]], [[0, 2, 3, 1]]], np.float32), depth=2)
    assert of.tolist() == [0, 0, 0] and item.tolist() == [0, 1, 2]


def test_level_with_another_counts_as_behind_it_and_no_score_as_a_miss() -> None:
    assert ranks(np.array([[2, 1, 1, 0]] * 3, np.float32), np.array([0, 1, 3])).tolist() == [0, 2, 4]
    source: Source = Fixed([[2, 1, 0, 0], [1, 2, 0, 0]])
    lists, _ = Asking({"one": source}, Visits.of([[0, 1, 2, 3]], 4)).lists(
        [np.array([0]), np.array([1])], np.array([1, 1])
    )
    assert lists.ranks(np.ones(len(lists.item))).tolist() == [3, 3]
    wanted = Lists(lists.columns, lists.item, lists.of, np.array([9, 1]))
    assert wanted.ranks(np.ones(len(lists.item))).tolist() == [MISSED, 3]
