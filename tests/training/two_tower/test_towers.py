"""The towers: exported == trained, a position in training == a history in serving, same bytes, cold items."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from shops.retrieval_contract import ITEMS, RetrievalContract, Scorer, checkerboard, contacts_of
from shops.tower_inputs import PARAMS, features_of, random_inputs, served_inputs

from feature_repo.events import HISTORY
from training.dataset import Contacts
from training.two_tower.attention import visible
from training.two_tower.export import export_onnx, write_towers
from training.two_tower.fit_towers import FittedTowers, fit_towers
from training.two_tower.item_features import Vocabulary, band_edges, bands
from training.two_tower.towers import (
    ServedTower,
    TwoTowers,
    UserTower,
    with_padding,
)

CUT = 40 * 86_400_000_000
NO_WORDS = Vocabulary((), (), (), ())


@pytest.fixture(scope="module")
def fitted() -> FittedTowers:
    sessions = checkerboard(rounds=2)
    return fit_towers(contacts_of(sessions), features_of(ITEMS), PARAMS, len(sessions) * 3_600_000_000)


class TestTwoTowers(RetrievalContract):
    rounds = 12

    def fit(self, contacts: Contacts, items: int) -> Scorer:
        towers = fit_towers(contacts, features_of(items), PARAMS, int(contacts.ts.max()) + 1)

        def score(histories: Sequence[Sequence[int]]) -> np.ndarray:
            with torch.no_grad():
                return towers.served(*served_inputs(histories)).numpy() @ towers.item_vectors.T

        return score


def test_the_exported_user_tower_equals_the_trained_one(fitted: FittedTowers, tmp_path: Path) -> None:
    export_onnx(fitted.served, tmp_path / "user_tower.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["user_tower.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "user_tower.onnx")
    names = [entry.name for entry in session.get_inputs()]
    assert names == ["items", "ages", "kinds", "context", "newborn"]
    rng = np.random.default_rng(1)
    for b in (1, 3, 200):
        newborn = torch.from_numpy(rng.normal(size=(b, HISTORY, PARAMS.dim)).astype(np.float32))
        inputs = (*random_inputs(rng, b, ITEMS + 3), newborn)  # some came after the fit
        feed = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
        (exported,) = session.run(["vector"], feed)
        with torch.no_grad():
            expected = fitted.served(*inputs).numpy()
        assert exported.shape == (b, PARAMS.dim) and exported.dtype == np.float32
        assert np.abs(exported - expected).max() < 1e-5
        assert np.linalg.norm(exported, axis=1) == pytest.approx(1, abs=1e-5)


def test_an_empty_history_tells_what_the_context_tells(fitted: FittedTowers) -> None:
    items, ages, kinds, _ = served_inputs([[], [], []])
    context = torch.tensor([[1, 1, 1], [1, 1, 1], [2, 3, 9]])
    with torch.no_grad():
        one, same, other = fitted.served(items, ages, kinds, context)
        long_ago = fitted.served(items, ages + 1e6, kinds, context)[0]
    assert torch.isfinite(one).all() and one.norm() == pytest.approx(1, abs=1e-5)
    assert torch.equal(one, same) and torch.equal(one, long_ago)
    assert not torch.allclose(one, other, atol=1e-3)


def test_what_stands_under_the_padding_changes_nothing(fitted: FittedTowers) -> None:
    items, ages, kinds, context = served_inputs([[3, 5, 7]])
    padding = items == 0
    with torch.no_grad():
        clean = fitted.served(items, ages, kinds, context)
        ages[padding], kinds[padding] = 1e7, 3
        dirty = fitted.served(items, ages, kinds, context)
    assert torch.equal(clean, dirty)


@pytest.mark.parametrize(("layers", "items"), [(2, [4, 9, 2, 7, 1, 8]), (0, [4, 9, 4, 4, 7, 9])])
def test_a_position_in_training_is_the_history_up_to_it_in_serving(layers: int, items: list[int]) -> None:
    # Repeats are exact with the head alone; with layers below it, older places of an item reach others.
    torch.manual_seed(0)
    params = dataclasses.replace(PARAMS, layers=layers)
    tower, table = UserTower(params).eval(), with_padding(torch.randn(12, params.dim))
    for name, weight in tower.named_parameters():
        if "by_" in name:
            torch.nn.init.normal_(weight)
    ts = torch.tensor([0.0, 30.0, 95.0, 4000.0, 4001.0, 200_000.0])
    kinds = torch.tensor([1, 1, 2, 2, 1, 3])
    window = torch.tensor(items)[None] + 1
    context = torch.tensor([2, 4, 9])
    waits = torch.tensor([0.0, 70.0, 0.0, 3.0, 90_000.0, 0.0])
    with torch.no_grad():
        everywhere = context.expand(1, len(items), 3)
        trained = tower(table, window, (ts.max() - ts)[None], kinds[None], waits[None], everywhere)[0]
        for t, vector in enumerate(trained):
            last = {item: place for place, item in enumerate(items[: t + 1])}  # keeps where each stands last
            places = sorted(last.values())
            asked = ts[t] + waits[t]
            rows, ages = torch.zeros(1, HISTORY, dtype=torch.int64), torch.zeros(1, HISTORY)
            strongest = torch.zeros_like(rows)
            rows[0, -len(places) :] = window[0, places]
            ages[0, -len(places) :] = asked - ts[places]
            strongest[0, -len(places) :] = kinds[places]
            served = ServedTower(tower, table)(rows, ages, strongest, context[None])[0]
            assert torch.allclose(vector, served, atol=1e-5), t


def test_a_repeated_item_is_seen_where_it_stands_last() -> None:
    allowed, distance = visible(torch.tensor([[0, 5, 7, 5]]))
    assert allowed[0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert distance[0, 3, 2:].tolist() == [1, 0]


def test_the_same_input_gives_the_same_files_byte_for_byte(tmp_path: Path) -> None:
    contacts, params = contacts_of(checkerboard(12)), dataclasses.replace(PARAMS, epochs=2, dropout=0.2)
    for name in ("first", "second"):
        towers = fit_towers(contacts, features_of(12), params, CUT)
        write_towers(towers, [f"item {i}" for i in range(12)], NO_WORDS, tmp_path / name)
        torch.rand(3)  # what happened before in the process must not matter
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("first", "second"))
    assert first.keys() == {
        "user_tower.onnx",
        "item_tower.onnx",
        "item_words.json",
        "item_vectors.npy",
        "item_ids.json",
        "curves.csv",
        "curves.png",
    }
    assert first == second


def test_another_seed_gives_other_vectors() -> None:
    contacts, params = contacts_of(checkerboard(12)), dataclasses.replace(PARAMS, epochs=1)
    one, other = (
        fit_towers(contacts, features_of(12), dataclasses.replace(params, seed=seed), CUT).item_vectors
        for seed in (1, 2)
    )
    assert not np.allclose(one, other, atol=1e-3)


def test_an_item_that_training_never_met_stands_on_its_content_beside_its_like() -> None:
    features = features_of(13)
    features.text[12] = features.text[4]  # a new item described like item 4
    vectors = fit_towers(contacts_of(checkerboard(12, rounds=4)), features, PARAMS, CUT).item_vectors
    similarity = vectors[:12] @ vectors[12]
    assert set(np.argsort(-similarity)[:2] % 2) == {0}
    assert similarity[4] == similarity.max()


def test_the_identity_of_an_unmet_item_is_not_used() -> None:
    model = TwoTowers(features_of(3), PARAMS).eval()
    model.items.seen[0] = True
    with torch.no_grad():
        before = model.items()
        model.items.identity.weight += 1
        moved = (model.items() - before).abs().amax(dim=1)
    assert moved.tolist() == pytest.approx([1, 0, 0], abs=1e-5)


def test_training_stops_when_the_held_out_days_stop_improving_and_writes_its_curves(tmp_path: Path) -> None:
    sessions = [np.random.default_rng(s).permutation(12)[:5].tolist() for s in range(60)]  # nothing to learn
    params = dataclasses.replace(PARAMS, epochs=30, patience=2, learning_rate=0.03)
    seen: list[int] = []
    towers = fit_towers(
        contacts_of(sessions),
        features_of(12),
        params,
        60 * 3_600_000_000,
        lambda epoch: seen.append(epoch.epoch),
    )
    best = max(towers.curves, key=lambda epoch: epoch.ndcg_at_12)
    assert seen == list(range(1, best.epoch + 3)) and len(seen) < 30
    write_towers(towers, [str(i) for i in range(12)], NO_WORDS, tmp_path)
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [int(row["epoch"]) for row in rows] == seen
    assert float(rows[best.epoch - 1]["ndcg_at_12"]) == pytest.approx(best.ndcg_at_12, abs=1e-6)


def test_the_sampled_softmax_learns_as_much_as_the_full_one() -> None:
    contacts = contacts_of(checkerboard(rounds=12))
    sampled = dataclasses.replace(PARAMS, full_softmax_below=0, sampled_negatives=256)
    towers = fit_towers(contacts, features_of(ITEMS), sampled, int(contacts.ts.max()) + 1)
    full = fit_towers(contacts, features_of(ITEMS), PARAMS, int(contacts.ts.max()) + 1)
    best, best_full = (max(epoch.ndcg_at_12 for epoch in fit.curves) for fit in (towers, full))
    assert best_full > 0.55  # .30 is what a model reaches that does not tell the colours apart
    assert best == pytest.approx(best_full, abs=0.05)


def test_the_item_tower_gives_the_same_rows_alone_as_in_the_whole_catalogue() -> None:
    model = TwoTowers(features_of(6), PARAMS).eval()
    model.items.seen[:3] = True
    torch.nn.init.normal_(model.items.identity.weight)
    with torch.no_grad():
        assert torch.allclose(model.items(torch.tensor([4, 1])), model.items()[[4, 1]], atol=1e-6)


def test_price_bands_are_deciles_of_what_is_known() -> None:
    prices = [float(i) for i in range(100)] + [None]
    codes = bands(prices, band_edges(prices))
    assert codes[:100].tolist() == [i // 10 + 1 for i in range(100)]
    assert codes[100] == 0
    assert bands([None, None], band_edges([None, None])).tolist() == [0, 0]
    assert bands([3.0, None], ()).tolist() == [0, 0]  # of a shop that told no price when it was fitted
