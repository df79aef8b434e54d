"""Slices against the champion's answers to the same questions: harm is refused, noise is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from feature_repo.params import load
from pipelines.gates.bar import Check, GateParams, Verdict
from pipelines.gates.margins import overall, slices
from pipelines.gates.scores import Part, Scores
from pipelines.protocol.metrics import OURS

PARAMS = load("gate", GateParams)
RNG = np.random.default_rng(5)
ASKED, PER_VISIT = 2400, 3
PLACES = 1 / np.log2(np.arange(2, 14))
ANONYMOUS = RNG.random(ASKED) < 0.5
SHARED = np.r_[PLACES, np.zeros(20)][RNG.integers(0, 32, ASKED)]  # what a fit of these questions comes to


def queries(n: int = ASKED) -> list[Any]:
    return [SimpleNamespace(session_id=f"s{q // PER_VISIT}", now=q, relevant={f"i{q}"}) for q in range(n)]


def fitted(seed: int, n: int = ASKED) -> np.ndarray[Any, Any]:
    """One fit's NDCG@12: like any other's, but that one question in twelve is answered at another place."""
    rng = np.random.default_rng(seed)
    moved = rng.random(n) < 0.08
    return np.where(moved, rng.permutation(SHARED[:n]), SHARED[:n])


def part(ours: np.ndarray[Any, Any], n: int = ASKED, asked: list[Any] | None = None) -> Scores:
    inside = [{"anonymous": bool(one), "known_user": not one} for one in ANONYMOUS[:n]]
    return Scores({OURS: Part.of(asked or queries(n), "ease", ours, 0.6 * fitted(1, n), inside)})


def judged(candidate: Scores, champion: Scores | None, params: GateParams = PARAMS) -> dict[str, Check]:
    return {check.name.split()[0]: check for check in slices(candidate, champion, params)}


def test_another_fit_of_the_same_model_is_refused_in_no_slice() -> None:
    pairs = [judged(part(fitted(seed)), part(fitted(seed + 100))) for seed in range(12)]
    states = [pair[name].state for pair in pairs for name in ("anonymous", "known_user")]
    assert states.count("FAILED") <= 1  # each 2.5 % at most
    assert states.count("passed") >= 20


def test_a_slice_whose_order_was_shuffled_is_refused_and_told_what_to_do() -> None:
    """As where the ranker's scores of visitors without a name are drawn by lot."""
    broken = fitted(2)
    broken[ANONYMOUS] = RNG.permutation(np.r_[PLACES, np.zeros(108)])[RNG.integers(0, 120, ANONYMOUS.sum())]
    found = judged(part(broken), part(fitted(3)))
    assert found["known_user"].state == "passed"
    check = found["anonymous"]
    assert check.interval is not None and check.interval[1] < check.needed
    told = Verdict((check,), "champion").shortfall()
    numbers = f"is {check.value:.4f}, needed {check.needed:.4f} (champion's 0."
    assert told.startswith(f"anonymous NDCG@12 no worse {numbers}")
    assert f"less 10%, {ANONYMOUS.sum():,} questions)" in told
    assert "next: `endcap compare` shows the lists of anonymous" in told


def test_a_slice_of_few_questions_is_too_early_to_tell_and_refuses_nothing() -> None:
    n = 150
    slightly = fitted(2, n)
    slightly[::9] = 0.0
    check = judged(part(slightly, n), part(fitted(3, n), n))["anonymous"]
    assert (check.state, check.passed) == ("told", True)
    assert check.because.endswith("questions; too early to say")
    hopeless = judged(part(np.zeros(n), n), part(fitted(3, n), n))["anonymous"]
    assert hopeless.state == "FAILED"  # no chance explains that


def test_a_slice_that_could_have_told_and_did_not_is_refused() -> None:
    """Between: neither shown to be no worse nor credibly worse, of a slice that is large enough."""
    down = fitted(3)
    down[RNG.random(ASKED) < 0.09] = 0.0
    check = judged(part(down), part(fitted(3)))["anonymous"]
    assert check.interval is not None
    assert check.interval[0] < check.needed < check.interval[1]
    assert check.state == "FAILED"
    assert judged(part(down), part(fitted(3)), replace(PARAMS, slice_power=0.01))["anonymous"].state == "told"


def test_a_champion_that_was_asked_something_else_leaves_the_best_baseline() -> None:
    others = [SimpleNamespace(session_id=q.session_id, now=q.now + 1, relevant=q.relevant) for q in queries()]
    for champion in (None, part(fitted(3), asked=others)):
        check = judged(part(fitted(2)), champion)["anonymous"]
        assert check.because.startswith("ease's") and check.state == "passed" and check.value > 0


def test_a_surface_is_compared_with_the_champions_lists_for_it() -> None:
    asked, hits = queries(600), (np.arange(600) % 2).astype(float)
    surface = Part.of(asked, "coviews", hits, hits)
    lost = Part.of(asked, "coviews", 0 * hits, hits)
    found = judged(Scores({"pdp_fbt": lost}), Scores({"pdp_fbt": surface}))["pdp_fbt"]
    told = Verdict((found,), "champion").shortfall()
    assert told.startswith("pdp_fbt hit rate@12 no worse is -0.") and "section `surfaces.pdp_fbt`" in told
    assert judged(Scores({"pdp_fbt": surface}), Scores({"pdp_fbt": surface}))["pdp_fbt"].state == "passed"
    assert not judged(Scores({"pdp_fbt": lost}), None)  # its own line is that of its own baseline


def test_scores_come_back_from_the_file_without_a_shoppers_or_a_visits_id(tmp_path: Path) -> None:
    file = tmp_path / "scores.parquet"
    written = part(fitted(2))
    written.write(file, "an evaluation")
    read = Scores.read(file, "an evaluation")
    assert read is not None
    before, after = written.parts[OURS], read.parts[OURS]
    assert (after.questions, after.against) == (before.questions, "ease")
    assert np.allclose(after.ours, before.ours, atol=1e-6) and (after.visit == before.visit).all()
    assert {name: rows.sum() for name, rows in after.slices.items()} == {
        "anonymous": ANONYMOUS.sum(),
        "known_user": (~ANONYMOUS).sum(),
    }
    assert b"s17" not in file.read_bytes() and not {"session_id", "user_id"} & set(before.__dict__)
    assert Scores.read(file, "another evaluation") is None
    assert Scores.read(tmp_path / "none.parquet", "an evaluation") is None


def test_a_lead_of_the_champion_that_chance_may_hide_stops_no_release() -> None:
    """As of trees fitted on a little less: 700 questions, 2 % lower, and no more than noise."""
    n = 700
    champion, low = part(fitted(3, n), n), fitted(3, n)
    low[::40] = 0.0
    (check,) = overall(part(low, n), champion, PARAMS)
    assert low.mean() < check.needed <= check.value and check.state == "passed"
    low[::9] = 0.0
    told = Verdict(tuple(overall(part(low, n), champion, PARAMS)), "champion").shortfall()
    assert (
        told.startswith("ndcg_at_12 is 0.") and "difference's interval: champion - 1.0%), missing by" in told
    )
    assert not list(overall(part(low, n), None, PARAMS))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_scores_give_the_same_lines(seed: int) -> None:
    assert judged(part(fitted(seed)), part(fitted(9))) == judged(part(fitted(seed)), part(fitted(9)))
