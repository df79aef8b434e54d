"""Who was shown nothing and why, how evenly the rest is shown, what exploring costs: known answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from shops.rules import document
from shops.tiny_bundle import catalogue, matrix

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.clock import HOUR_US
from feature_repo.features.catalogue import SHOWN
from monitoring.experiment.tail import Exposure, Outcome
from pipelines.unseen.bill import bill
from pipelines.unseen.causes import List, blocking, cause, places
from pipelines.unseen.sightings import Sightings, by_day
from pipelines.unseen.webpage import write_page
from serving.types import Request

NOW = 1_700_000_000_000_000
ITEMS = matrix(catalogue(40))
HERO = Request("homepage_hero", session_id="s", limit=2)


def lists(ruled: bool = False) -> list[List]:
    """Candidates 0..4 by their scores, of which 0 and 2 are shown."""
    items = [f"item-{n}" for n in range(5)]
    return [List(HERO, NOW, items, [2.0, 1.5, 1.0, 0.5, 0.25], ["item-0", "item-2"], ruled)]


def told(
    item: str, ruled: bool = False, rules: tuple[dict[str, object], ...] = (), items: ItemMatrix = ITEMS
) -> tuple[str, str]:
    found = lists(ruled)
    stands = places(found, {item})
    blocked = blocking(document(*rules), found, items, NOW)
    return cause(item, items, blocked, stands[item], NOW, 72)


def test_each_product_has_the_stage_at_which_it_fell() -> None:
    assert told("item-30") == ("never retrieved", "no source brought it to any list")
    assert told("item-4") == ("outranked", "best rank 5 in 1 of the lists, 1.25 short")
    assert told("item-1")[0] == "diversity"
    assert told("item-1", ruled=True)[0] == "rule"
    assert told("nowhere")[0] == "not in release"
    block = {"block": {"where": {"item_id": ["item-30"]}}}
    assert told("item-30", rules=(block,)) == ("blocked", "by rule r0")
    elsewhere = {**block, "when": {"surface": ["pdp_fbt"]}}
    assert told("item-30", rules=(elsewhere,))[0] == "never retrieved"


def test_what_is_sold_out_or_has_just_come_is_expected_nowhere() -> None:
    rows = [6, 7, 8]
    said = {name: catalogue(40)[name].take(rows).to_pylist() for name in (*SHOWN, "margin", "stock")}
    said |= {"stock": [40, 0, 40], "available_from": [NOW + 1, None, NOW - 71 * HOUR_US]}
    moved = ITEMS.listed(np.array(rows), said)
    assert told("item-7", items=moved) == ("sold out", "no stock")
    assert told("item-8", items=moved) == ("sold out", "on sale for less than 72 hours")
    assert told("item-6", items=moved) == ("sold out", "its first day of sale is to come")


def test_days_tell_the_long_tails_share_gini_and_coverage() -> None:
    names = [f"i{n}" for n in range(10)]
    even = Counter(dict.fromkeys(names, 5))
    head = Counter({"i0": 80, "i1": 10, "i9": 10})
    seen = Sightings(days={100: Counter({"i0": 9, "i1": 9}), 101: head, 102: even})
    first, second, third = by_day(seen, names, 0.8)
    assert first["tail_share"] is None and first["coverage"] == 0.2
    assert second["tail_share"] == pytest.approx(0.1) and second["coverage"] == pytest.approx(0.3)
    assert third["gini"] == pytest.approx(0.0) and third["coverage"] == 1.0


def exposures(lift: float, seed: int = 3) -> list[Exposure]:
    rng, found = np.random.default_rng(seed), []
    for n in range(6000):
        explored = bool(rng.random() < 0.4)
        clicked = rng.random() < 0.2 + lift * explored
        outcomes = {"b": Outcome(1, 1)} if clicked else {}
        found.append(
            Exposure(
                *(f"r{n}", n, f"u{n % 1500}", None, None, "champion", "", "homepage_hero", ("a", "b"), n),
                explored=explored,
                outcomes=outcomes,
            )
        )
    return found


def test_the_bill_has_the_true_cost_in_its_interval() -> None:
    found = bill(exposures(-0.1))
    change, low, high = found["ctr_change"]
    assert low < -0.1 < high < 0 and low < change < high
    assert found["clicks"][0] == pytest.approx(change * found["explored"]["lists"])
    free = bill(exposures(0.0))["ctr_change"]
    assert free[1] < 0 < free[2]


def test_a_handful_of_shoppers_has_no_interval_and_others_are_no_part_of_it() -> None:
    assert bill(exposures(0.0)[:10])["ctr_change"] is None
    plain = Exposure("r", 1, "u", None, None, "holdout", "", "homepage_hero", ("a", "b"), 1)
    assert bill([plain] * 100)["explored"]["lists"] == 0


def test_the_page_executes_no_title(tmp_path) -> None:  # type: ignore[no-untyped-def]
    one = {
        "item_id": "<b>",
        "title": "<script>alert(1)</script>",
        "cause": "outranked",
        "told": "",
        "last_seen": None,
    }
    report = {
        "now": "2026-03-04T00:00:00+00:00",
        "hours": 72,
        "source": "2 answers",
        "products": 2,
        "unseen": 1,
    }
    write_page(
        report | {"could_be_sold": 1, "causes": {"outranked": 1}, "items": [one]},
        tmp_path / "p.html",
        "p.png",
    )
    page = (tmp_path / "p.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
