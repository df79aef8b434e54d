"""Quotas and the window of purchases, learned where the right answer is known."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.small import open_home, random_events, write_raw

from feature_repo.errors import ParamsError
from feature_repo.params import load
from feature_repo.places import BLEND, BLEND_PICTURE, at
from pipelines.blend import blend, quotas
from pipelines.blend.blend import BlendParams, learn
from pipelines.blend.charts import draw_blend
from pipelines.blend.quotas import Asked, Brought, filled, greedy
from pipelines.protocol.chosen import learned
from serving.stages.retrieve import Retrieve, fill

SOURCES = ("shown", "ease", "reorder", "fresh", "popular")
SHIPPED = Retrieve(
    k=20,
    quotas={"shown": 4, "ease": 4, "reorder": 2, "fresh": 2, "popular": 8},
    covisit_decay=0.6,
    ease_decay=0.7,
    earlier_weight=0.3,
    fresh_days=7.0,
    bought_days=30.0,
)
PARAMS = BlendParams(
    queries=500, min_queries=50, block=2, floors={"fresh": 2}, windows=(0.0, 30.0, 365.0), least_share=0.005
)


def random_asked(seed: int, queries: int = 60, items: int = 60) -> list[Asked]:
    """Queries whose sources bring 0 to 20 random items each, of which a few were bought."""
    rng = np.random.default_rng(seed)

    def one() -> Asked:
        brought = {name: rng.permutation(items)[: rng.integers(0, 21)].tolist() for name in SOURCES}
        brought["popular"] = list(range(items))
        wanted = rng.permutation(items + 5)[: rng.integers(1, 8)].tolist()
        bought = {int(row): float(rng.integers(1, 100)) for row in rng.permutation(items)[:3]}
        return Asked(brought, frozenset(row for row in wanted if row < items), len(wanted), bought)

    return [one() for _ in range(queries)]


def taught(
    asked: Sequence[Asked], params: BlendParams = PARAMS, shipped: Retrieve = SHIPPED
) -> dict[str, Any]:
    return learn(asked, [f"visit {at // 3}" for at in range(len(asked))], shipped, params, seed=3)


class Fixed:
    """Sources that bring given rows."""

    def __init__(self, brought: dict[str, list[int]], barred: set[int]) -> None:
        self._brought = {name: [r for r in rows if r not in barred] for name, rows in brought.items()}
        self.scores = self  # of which only the rows are looked at here

    def best(self, source: str) -> list[int]:
        return self._brought[source]

    def of(self, rows: Any, place: Any) -> None:
        """No scores."""


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(quotas).failed == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), window=st.sampled_from([0.0, 30.0, 365.0]))
def test_candidates_are_counted_as_serving_would_bring_them(seed: int, window: float) -> None:
    asked = random_asked(seed, queries=8)
    brought = Brought.of(asked, SOURCES)
    found = filled(brought, SHIPPED.quotas, SHIPPED.k, brought.barred(window))
    for one, recall in zip(asked, found.recall, strict=True):
        barred = {row for row, days in one.bought.items() if days < window}
        rows = fill(SHIPPED.quotas, SHIPPED.k, Fixed(one.brought, barred)).rows.tolist()  # type: ignore[arg-type]
        assert recall == pytest.approx(len(one.wanted.intersection(rows)) / one.many)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_is_learned_never_finds_less_than_the_shipped_quotas_on_the_same_queries(seed: int) -> None:
    report = taught(random_asked(seed), replace(PARAMS, windows=(30.0,)))
    assert report["recall"]["after"] >= report["recall"]["before"]
    assert sum(report["quotas"].values()) >= 0 and report["bought_days"] == 30.0


def planted(source: str) -> list[Asked]:
    """All that is wanted stands in the last ten places of `source`, and nowhere else."""
    asked = []
    for one in random_asked(1, queries=90, items=50):
        brought = one.brought | {source: [*range(80, 90), *range(60, 70)]}
        asked.append(Asked(brought, frozenset(range(60, 70)), 10, {}))
    return asked


def test_a_source_that_holds_all_the_truth_gets_the_places() -> None:
    report = taught(planted("ease"))
    assert next(iter(report["quotas"])) == "ease" and report["quotas"]["ease"] >= 18
    assert report["recall"]["after"] > report["recall"]["before"] == 0.0


def test_a_source_that_adds_nothing_is_left_out_and_told_and_a_floor_is_kept() -> None:
    report = taught(planted("ease"))
    assert report["left_out"] == ["shown", "reorder"]
    assert report["sources"]["shown"]["quota"] == 0
    assert report["quotas"]["fresh"] == 2  # new items have a way in
    assert set(report["quotas"]) == {"ease", "fresh"}


def test_what_the_others_bring_already_counts_for_no_source() -> None:
    """The second of two equal sources brings nothing new: ties go to the one that is listed first."""
    asked = [one._replace(brought=one.brought | {"shown": one.brought["ease"]}) for one in planted("ease")]
    brought = Brought.of(asked, SOURCES)
    assert greedy(brought, 20, 2, {}, brought.barred(0.0)).keys() == {"shown"}


def bought(days: float, reordered: bool) -> list[Asked]:
    """Each shopper bought three items `days` ago; they want them again, or other ones."""
    asked = []
    for shift, one in enumerate(random_asked(2, queries=150, items=50)):
        mine = [60 + (shift + i) % 9 for i in range(3)]
        brought = one.brought | {"reorder": mine, "ease": [*mine, *one.brought["ease"]]}
        wanted = mine[:2] if reordered else list(one.wanted) or [1]
        asked.append(Asked(brought, frozenset(wanted), len(wanted), dict.fromkeys(mine, days)))
    return asked


def test_a_shop_of_reorders_learns_the_window_after_which_its_shoppers_buy_again() -> None:
    assert taught(bought(40.0, reordered=True))["bought_days"] == 30.0
    assert taught(bought(3.0, reordered=True))["bought_days"] == 0.0


def test_where_the_window_makes_no_difference_the_longest_is_taken() -> None:
    never = [one._replace(bought={}) for one in random_asked(4, queries=150)]
    assert taught(never)["bought_days"] == 365.0


def test_the_same_queries_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (taught(random_asked(9)) for _ in range(2))
    assert orjson.dumps(first) == orjson.dumps(second)
    for name in ("a.png", "b.png"):
        draw_blend(first | {"shop": "planted", "queries": 60, "k": 20}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_shop_with_few_queries_keeps_the_shipped_quotas_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = open_home(tmp_path, monkeypatch)
    write_raw(home, random_events(seed=3, count=60))
    blend.main()
    told = "0 queries between rank_from and valid_from are too few to learn from (200): the quotas of params"
    assert told in capsys.readouterr().out
    assert learned() == load("retrieve", Retrieve)
    assert list(learned().quotas) == list(load("retrieve", Retrieve).quotas)  # the order, too
    assert at(BLEND).exists() and at(BLEND_PICTURE).exists()


def test_a_floor_of_an_unknown_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = open_home(tmp_path, monkeypatch)
    text = (home / "params.yaml").read_text().replace("floors: {fresh: 5}", "floors: {frsh: 5}")
    (home / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"blend\.floors: 'frsh' is no source of .*allowed: shown, ease"):
        blend.main()
