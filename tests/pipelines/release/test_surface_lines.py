"""The gate's line of every surface: its own baseline, on its own questions."""

from __future__ import annotations

from typing import Any

import pytest

from feature_repo.params import load
from pipelines.release.bar import GateError, GateParams, Verdict, surfaces


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
