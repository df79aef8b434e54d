"""An answer of the user tower is of its row alone, trained and exported; what small shops teach it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.retrieval_contract import ITEMS, checkerboard, contacts_of
from shops.tower_inputs import PARAMS, features_of, random_inputs

from feature_repo.events import HISTORY
from training.two_tower.export import INPUTS, export_onnx
from training.two_tower.fit_towers import FittedTowers, fit_towers, planned_epochs

Answerer = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def fitted() -> FittedTowers:
    sessions = checkerboard(rounds=2)
    return fit_towers(contacts_of(sessions), features_of(ITEMS), PARAMS, len(sessions) * 3_600_000_000)


@pytest.fixture(scope="module")
def answerers(fitted: FittedTowers, tmp_path_factory: pytest.TempPathFactory) -> list[Answerer]:
    path = tmp_path_factory.mktemp("tower") / "user_tower.onnx"
    export_onnx(fitted.served, path)
    session = onnxruntime.InferenceSession(path)

    def exported(*inputs: torch.Tensor) -> np.ndarray:
        feed = {name: tensor.numpy() for name, tensor in zip(INPUTS, inputs, strict=True)}
        return session.run(["vector"], feed)[0]

    def trained(*inputs: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return fitted.served(*inputs).numpy()

    return [exported, trained]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_an_answer_does_not_read_the_neighbours_of_its_row(
    answerers: list[Answerer], seed: int, b: int
) -> None:
    rng = np.random.default_rng(seed)
    newborn = rng.normal(size=(b, HISTORY, PARAMS.dim)).astype(np.float32)
    inputs = (*random_inputs(rng, b, ITEMS + 3), torch.from_numpy(newborn))
    order, one = rng.permutation(b), int(rng.integers(b))
    for answer in answerers:
        together = answer(*inputs)
        shuffled = answer(*(tensor[order] for tensor in inputs))
        alone = answer(*(tensor[one : one + 1] for tensor in inputs))
        assert shuffled == pytest.approx(together[order], abs=1e-6)
        assert alone[0] == pytest.approx(together[one], abs=1e-6)


@pytest.mark.parametrize("full_softmax_below", [1000, 0])
def test_a_shop_of_which_only_ids_are_known_is_learned_too(full_softmax_below: int) -> None:
    # Items that all begin as one vector stand on a saddle: the sampled loss got to .36, .30 being chance.
    features, sessions = features_of(ITEMS), checkerboard(rounds=12)
    features.text[:] = 0
    params = dataclasses.replace(PARAMS, full_softmax_below=full_softmax_below, sampled_negatives=256)
    fit = fit_towers(contacts_of(sessions), features, params, len(sessions) * 3_600_000_000)
    assert max(epoch.ndcg_at_12 for epoch in fit.curves) > 0.5


def test_a_small_shop_trains_longer_within_the_bound_of_positions() -> None:
    params = dataclasses.replace(PARAMS, epochs=6, most_epochs=24, positions=480_000)
    assert [planned_epochs(params, n) for n in (0, 5_000, 40_000, 80_000, 10_000_000)] == [24, 24, 12, 6, 6]
