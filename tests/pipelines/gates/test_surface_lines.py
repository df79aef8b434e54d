"""The gate's lines of every surface, of its own baseline, and of how popular and uneven the lists are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from feature_repo.params import load
from pipelines.gates.bar import Evaluation, GateError, GateParams, Verdict
from pipelines.gates.evenness import spread
from pipelines.gates.margins import surfaces


def test_a_surface_credibly_below_its_baseline_fails_by_name_and_one_that_few_asked_is_not_judged() -> None:
    params = load("gate", GateParams)
    found = {"hit_rate_at_12": 0.2, "baseline_hit_rate_at_12": 0.25, "baseline": "coviews"}
    report: dict[str, Any] = {"surfaces": {"pdp_fbt": found | {"queries": 300, "over": [-0.08, -0.02]}}}
    check = surfaces(report, params)[0]
    assert not check.passed and check.missing == pytest.approx(0.02)
    assert "coviews under the same filters" in Verdict((check,), "ease").shortfall()
    report["surfaces"]["pdp_fbt"] |= {"over": [-0.08, 0.01]}
    assert surfaces(report, params)[0].passed
    report["surfaces"]["pdp_fbt"] |= {"over": [-0.08, float("nan")]}
    with pytest.raises(GateError, match=r"surfaces.pdp_fbt.over: nan"):
        surfaces(report, params)
    report["surfaces"]["pdp_fbt"] |= {"queries": 299}
    assert not surfaces(report, params) and not surfaces({}, params)


def shown(arp: float, gini: float, queries: int = 1000) -> Evaluation:
    """Lists of this ARP, where bestsellers' have 100."""
    identity = ("session_continuation", 12, queries, 445, "2026-02-23", "2026-03-02")
    return Evaluation(identity, queries, {}, spread={"arp": arp / 100, "gini": gini})


def test_lists_of_bestsellers_alone_are_told_by_a_first_release_which_nothing_can_be_compared_with() -> None:
    arp, gini = spread(shown(95.0, 0.95), load("gate", GateParams))
    assert (arp.state, gini.state) == ("told", "told")
    assert arp.needed == 0.9 and arp.because == "the ceiling; no champion to compare with"


def test_arp_is_told_in_shares_of_bestsellers_and_not_at_all_by_a_report_without_it() -> None:
    models = {name: {"ndcg_at_12": 0.3, "coverage_at_12": 0.8} for name in ("endcap", "popularity")}
    report: dict[str, Any] = {"protocol": "p", "k": 12, "queries": 9, "candidates": 9, "models": models}
    report["span"] = {"from": "a", "to": "b"}
    assert not spread(Evaluation.from_report(report), load("gate", GateParams))
    models["endcap"] |= {"arp": 24.0, "gini": 0.5}
    models["popularity"] |= {"arp": 96.0}
    assert Evaluation.from_report(report).spread == {"arp": 0.25, "gini": 0.5}
    models["endcap"]["gini"] = float("nan")
    with pytest.raises(GateError, match=r"models\.endcap\.gini: nan"):
        Evaluation.from_report(report)


def test_lists_may_not_get_much_more_popular_or_uneven_than_the_champions() -> None:
    params, champion = load("gate", GateParams), shown(24.0, 0.55)
    assert Verdict(spread(shown(29.9, 0.64), params, champion), "champion").passed
    told = Verdict(spread(shown(31.0, 0.66), params, champion), "champion").shortfall()
    assert told.startswith(
        "arp over bestsellers' is 0.3100, allowed at most 0.3000 (champion's 0.240 and the tolerance), "
        "too high by 0.0100, next: `diversify` in params.yaml"
    )
    assert "gini is 0.6600, allowed at most 0.6500 (champion's 0.550 and the tolerance)" in told


def test_a_champion_of_before_these_were_told_is_no_bar() -> None:
    champion = replace(shown(24.0, 0.55), spread={})
    assert Verdict(spread(shown(95.0, 0.95), load("gate", GateParams), champion), "champion").passed


def test_lists_of_other_questions_are_no_bar_and_told() -> None:
    """A week with more strangers has more lists that are alike, whatever release made them."""
    arp, gini = spread(shown(31.0, 0.66), load("gate", GateParams), shown(24.0, 0.55, queries=999))
    assert (arp.state, gini.state, arp.passed, gini.passed) == ("told", "told", True, True)
    assert gini.because == "champion's 0.550 and the tolerance, of other questions"
