"""The price of each knob: the same rankings by every setting, measured against known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shops.tiny_bundle import catalogue, matrix

from pipelines.blend import variety
from pipelines.blend.charts import draw_variety
from serving.stages.diversify import Diversify
from serving.types import Ranked

USED = Diversify(trade_off=0.0, category_weight=0.7, tail_share=0.25, tail_below=0.2)
N = 30


def ranked() -> Ranked:
    return Ranked(np.arange(N), -np.arange(N, dtype=np.float32), ("ease",) * N, np.empty((0, 0), np.float32))


def test_every_knob_is_tried_alone_and_at_the_value_that_serves() -> None:
    tried = variety.settings(USED, tail_share=(0, 1), trade_off=(0.1, 0.0))
    assert [(setting.knob, setting.value) for setting in tried] == [
        ("tail_share", 0),
        ("tail_share", 0.25),
        ("tail_share", 1),
        ("trade_off", 0.0),
        ("trade_off", 0.1),
    ]
    assert sum(setting.params == USED for setting in tried) == 2
    assert all(setting.params.tail_share == 0.25 for setting in tried if setting.knob == "trade_off")


def test_a_list_is_as_varied_as_its_pairs_and_trade_off_buys_distance() -> None:
    items = matrix(catalogue(N))
    tried = variety.settings(USED, trade_off=(0.0, 0.5))
    plain, varied = variety.laid(tried, ranked(), items, 6, None)
    alike = [
        0.7 * (items.category[a] == items.category[b]) + 0.3 * (items.price_band[a] == items.price_band[b])
        for a in range(6)
        for b in range(6)
        if a != b
    ]
    assert plain.rows.tolist() == list(range(6))
    assert plain.distance == pytest.approx(1 - np.mean(alike))
    assert varied.distance > plain.distance


def test_prices_are_the_metrics_of_the_lists(tmp_path: Path) -> None:
    items = matrix(catalogue(N))
    values = dict.fromkeys(items.activity, np.zeros(N)) | {"at": np.ones(N, np.int64)}
    seen = np.where(np.arange(N) == 20, 0.0, 5.0)
    items.apply(np.arange(N), values | {"exposure_7d": seen})
    tried = variety.settings(USED, tail_share=(0, 1))
    answered = [variety.laid(tried, ranked(), items, 3, drawn) for drawn in (0.1, 0.9)]
    wanted, known = [frozenset({0}), frozenset({2})], np.ones(N, np.bool_)
    rows = variety.priced(tried, answered, wanted, np.array([1, 1]), known)
    ndcg = [(1 + 0.5) / 2, (1 + 0.5) / 2, 0.5]  # with the slot in every answer, item 2 goes
    assert [row["ndcg_at_12"] for row in rows] == pytest.approx(ndcg)
    assert [row["coverage_at_12"] for row in rows] == pytest.approx([3 / N, 4 / N, 3 / N])
    for told in (rows, []):
        report = {"shop": "tiny", "variety": told, "tail_share": 0.25, "tail_below": 0.2, "trade_off": 0.0}
        draw_variety(report, tmp_path / "variety.png")
        assert (tmp_path / "variety.png").stat().st_size > 10_000
