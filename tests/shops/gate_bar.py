"""Limits of a gate that its tests reckon with."""

from __future__ import annotations

from pipelines.gates.bar import GateParams

PARAMS = GateParams(
    min_queries=100,
    min_ratio=1.1,
    tolerance=0.01,
    min_coverage=0.6,
    coverage_tolerance=0.05,
    slice_margin=0.1,
    slice_power=0.5,
    min_slice_queries=50,
    max_arp=0.9,
    arp_tolerance=0.25,
    max_gini=0.9,
    gini_tolerance=0.1,
    max_slowdown=2.0,
    fast_ms=10.0,
    speed_questions=8,
    max_growth=2.0,
)
