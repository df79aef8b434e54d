"""Admission: a bundle's verdict must be its own, and hold against the champion of now."""

from __future__ import annotations

from typing import Any

import pytest
from shops.gate_bar import PARAMS

from pipelines.gates.bar import Evaluation, GateError, judge
from pipelines.release.admission import admit
from pipelines.release.gate import verdict_json


def manifest(ndcg: float) -> dict[str, Any]:
    """What a bundle carries after a gate without a champion: it passes from 0.22."""
    metrics = {
        "protocol": "session_continuation",
        "k": 12,
        "queries": 1000,
        "candidates": 445,
        "span": {"from": "2026-02-23T00:00:00Z", "to": "2026-03-02T00:00:00Z"},
        "models": {
            "endcap": {"ndcg_at_12": ndcg, "coverage_at_12": 0.8},
            "ease": {"ndcg_at_12": 0.2, "coverage_at_12": 0.6},
        },
        "slices": {},
    }
    verdict = judge(Evaluation.from_report(metrics), PARAMS)
    return {"metrics": metrics, "gate": verdict_json(verdict, metrics, None)}


def test_a_passed_verdict_of_the_bundles_own_metrics_is_admitted() -> None:
    candidate = manifest(0.3)
    assert admit(candidate, None, PARAMS, candidate["gate"]).against == "ease"
    assert admit(candidate, manifest(0.302), PARAMS).against == "champion"


def test_a_failed_verdict_is_refused_with_what_is_missing() -> None:
    with pytest.raises(GateError, match=r"ndcg_at_12 is 0\.2100, needed 0\.2200 \(.+\), missing by 0\.0100"):
        admit(manifest(0.21), None, PARAMS)


def test_the_champion_of_now_is_the_bar_even_where_the_bundle_was_judged_without_one() -> None:
    with pytest.raises(GateError, match=r"champion of now: ndcg_at_12 is 0\.3000, needed 0\.3960"):
        admit(manifest(0.3), manifest(0.4), PARAMS)


def test_a_champion_that_carries_no_metrics_leaves_the_baselines_as_the_bar() -> None:
    assert admit(manifest(0.3), {"digest": "old"}, PARAMS).against == "ease"


def test_the_verdict_of_other_metrics_is_refused() -> None:
    with pytest.raises(GateError, match="of another evaluation"):
        admit(manifest(0.3) | {"metrics": manifest(0.9)["metrics"]}, None, PARAMS)


def test_a_newer_gate_than_the_bundles_is_believed() -> None:
    with pytest.raises(GateError, match="the newest one failed"):
        admit(manifest(0.3), None, PARAMS, manifest(0.1)["gate"])
    with pytest.raises(GateError, match="of another evaluation"):
        admit(manifest(0.3), None, PARAMS, manifest(0.4)["gate"])


@pytest.mark.parametrize("part", ["gate", "metrics"])
def test_a_bundle_without_metrics_or_verdict_is_refused(part: str) -> None:
    with pytest.raises(GateError, match="carries no verdict"):
        admit(manifest(0.3) | {part: None}, None, PARAMS)
