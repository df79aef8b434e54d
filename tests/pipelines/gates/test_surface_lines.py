"""The gate's lines of every surface, of its own baseline, and of how popular and uneven the lists are."""

from __future__ import annotations

from typing import Any

import pytest

from feature_repo.params import load
from pipelines.gates.bar import Evaluation, GateError, GateParams, Verdict, spread, surfaces


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


def test_lists_of_bestsellers_alone_fail_by_arp_and_gini_whatever_came_before() -> None:
    told = Verdict(spread(shown(95.0, 0.95), load("gate", GateParams)), "ease").shortfall()
    assert told.startswith(
        "arp over bestsellers' is 0.9500, allowed at most 0.9000 (the ceiling), too high by 0.0500, next: `d"
    )
    assert "gini is 0.9500, allowed at most 0.9000 (the ceiling), too high by 0.0500" in told


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
    arp, gini = spread(shown(30.1, 0.66), params, champion)
    assert (arp.passed, gini.passed) == (False, False)
    assert arp.because == "champion's 0.240 and the tolerance" and arp.needed == pytest.approx(0.3)
    other = spread(shown(30.1, 0.66), params, shown(24.0, 0.55, queries=999))
    assert all(check.passed for check in other)
    assert other[0].because == "the ceiling; the champion's is 0.240, on other queries"
