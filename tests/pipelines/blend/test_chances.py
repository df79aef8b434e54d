"""Chances of a click: right on average where they are told, and told only of clicks enough."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from pipelines.blend import chances
from serving.stages.odds import Chances

WEIGHTS = {"ranker": {"visit": 1.0}, "attraction": {"visit": 0.5}}


def shown(pages: int, seed: int = 1) -> pd.DataFrame:
    """Lists of 12; a click by the position and by the score that would order them."""
    rng = np.random.default_rng(seed)
    place = np.tile(np.arange(1, 13), pages)
    score, pull = rng.normal(size=(2, len(place)))
    odds = -2.5 - 0.5 * np.log(place) + 0.8 * (score + 0.5 * pull)
    return pd.DataFrame(
        {
            "page": np.repeat(np.arange(pages), 12),
            "phase": "visit",
            "surface": "homepage_hero",
            "position": place.astype(float),
            "clicked": rng.random(len(place)) < expit(odds),
            "score": score.astype(np.float32),
            "attraction": pull,
        }
    )


def test_what_is_told_comes_true_and_is_better_than_one_chance_for_all() -> None:
    told = chances.calibrated(shown(1500), WEIGHTS, least=200)
    assert told["brier"] < told["brier_plain"]
    assert all(abs(said - true) < 0.02 for said, true, _ in told["reliability"])
    known = Chances(**{name: told[name] for name in Chances.__dataclass_fields__})
    fresh = shown(1500, seed=2)
    score = chances.served(fresh, WEIGHTS).astype(np.float32)
    said = known.of("homepage_hero", score, fresh["position"].to_numpy())
    assert said.mean() == pytest.approx(fresh["clicked"].mean(), rel=0.08)
    first, last = known.of("homepage_hero", np.float32([0.3, 0.3]), [1, 12])
    assert first > last
    assert known.of("pdp_fbt", np.float32([0.3])) == known.of("homepage_hero", np.float32([0.3]))


def test_too_few_clicks_tell_nothing_and_say_so() -> None:
    told = chances.calibrated(shown(20), WEIGHTS, least=200)
    assert set(told) == {"clicks", "why"} and "are too few, 200 are needed" in told["why"]
    assert "no chance of a click is calibrated" in chances.told(told)
    assert not Chances().known
