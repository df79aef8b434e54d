"""Rows behind a release's own: the old ones stay bit by bit, the new ones read like any other."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.assemble.matrix import ACTIVITY, ItemMatrix, Newborns

CATALOGUE = ("price", "margin", "stock", "available_from", "category_path", "brand")
CODES = ("category", "department", "brand", "price_band")
COLUMNS = ("price", "margin", "stock", "available_from", "price_log", *CODES)
PATHS = st.sampled_from([None, "Home", "Home/Bags", "Home/Bags/Small", "Home/Toys", "Office/Pens"])
LINE = st.fixed_dictionaries(
    {
        "price": st.none() | st.floats(0, 500, width=32),
        "margin": st.none() | st.floats(0, 1, width=32),
        "stock": st.none() | st.integers(0, 9),
        "available_from": st.none() | st.integers(1, 10**15),
        "category_path": PATHS,
        "brand": st.none() | st.sampled_from(["", "a", "b", "c"]),
    }
)


def columns(lines: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [line[name] for line in lines] for name in CATALOGUE}


def newborns(count: int, d: int = 4) -> Newborns:
    vectors = np.random.default_rng(count).normal(size=(count, d)).astype(np.float32)
    return Newborns.of([7] * count, list(vectors))


def touched(lines: list[dict[str, Any]]) -> ItemMatrix:
    matrix = ItemMatrix([f"own {i}" for i in range(len(lines))], columns(lines))
    rng = np.random.default_rng(1)
    rows = np.arange(len(lines))
    matrix.apply(rows, {name: rng.integers(1, 99, len(lines)) for name in ACTIVITY})
    return matrix


@settings(deadline=None, max_examples=60)
@given(st.lists(LINE, max_size=8), st.lists(LINE, max_size=5), st.lists(LINE, max_size=5))
def test_rows_that_are_appended_leave_the_old_ones_as_they_are_bit_by_bit(
    own: list[dict[str, Any]], first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    matrix, n = touched(own), len(own)
    before = {name: getattr(matrix, name).tobytes() for name in COLUMNS}
    for lines in (first, second):
        ids = [f"new {i}" for i in range(len(lines))]
        grown = matrix.with_newborns(ids, newborns(len(lines)), columns(lines))
        assert grown.own == n and grown.ids == [*matrix.ids[:n], *ids]
        assert grown.row == {item: i for i, item in enumerate(grown.ids)}
        for name in COLUMNS:
            column = getattr(grown, name)
            assert len(column) == len(grown) and column[:n].tobytes() == before[name], name
        for name in ACTIVITY:
            assert grown.activity[name][:n].tobytes() == matrix.activity[name][:n].tobytes()
            assert grown.activity[name].dtype == matrix.activity[name].dtype
            assert not grown.activity[name][n:].any()
        assert {name: getattr(matrix, name)[:n].tobytes() for name in COLUMNS} == before
        # an item of the old words has their code, whether it stands before or behind
        known = dict(zip(columns(own)["category_path"], grown.category.tolist(), strict=False))
        for line, code in zip(lines, grown.category[n:].tolist(), strict=True):
            assert code == known.get(line["category_path"], code) and (code > 0) == bool(
                line["category_path"]
            )
        matrix = touched(own)


def test_who_stays_keeps_its_counts_and_who_goes_leaves_no_trace() -> None:
    line = {"price": 5.0, "margin": None, "stock": 3, "available_from": None}
    lines = [{**line, "category_path": "Home/Bags", "brand": brand} for brand in ("a", "b", "c")]
    matrix = touched(lines[:1]).with_newborns(["x", "y"], newborns(2), columns(lines[1:]))
    matrix = matrix.updated(np.array([2]), {name: [41] for name in ACTIVITY})  # y was viewed
    later = matrix.with_newborns(["y", "z"], newborns(2), columns(lines[1:]))
    assert later.ids == ["own 0", "y", "z"] and later.own == 1 and "x" not in later.row
    assert [int(v) for v in later.activity["at"][1:]] == [41, 0]
    assert matrix.ids == ["own 0", "x", "y"] and matrix.row["y"] == 2, "the snapshot before"
    assert len(later.with_newborns([], newborns(0), columns([]))) == 1
    assert (later.popularity() <= 1).all() and len(later.popularity()) == 3


def test_a_newborn_has_the_price_band_of_the_release_s_own_catalogue() -> None:
    line = {"margin": None, "stock": 3, "available_from": None, "category_path": None, "brand": None}
    own = touched([{**line, "price": float(price)} for price in range(1, 11)])
    grown = own.with_newborns(
        ["dear", "cheap"], newborns(2), columns([{**line, "price": p} for p in (900.0, 0.5)])
    )
    assert grown.price_band[10:].tolist() == [5, 1]


def test_a_new_price_shares_what_it_does_not_change_and_a_new_title_copies_no_other_column() -> None:
    line = {"margin": 0.1, "stock": 3, "available_from": 5, "category_path": "Home/Bags", "brand": "a"}
    lines = [{**line, "price": float(price)} for price in range(1, 11)]
    titles = {"title": [f"title {i}" for i in range(10)], "url": ["/"] * 10}
    before = ItemMatrix([f"own {i}" for i in range(10)], columns(lines) | titles)
    said = columns([{**line, "price": 50.0}, {**line, "price": 60.0}])
    dearer = before.listed(np.array([2, 3]), said | {"title": ["title 2", "title 3"], "url": ["/", "/"]})
    assert dearer.price[[2, 3]].tolist() == [50.0, 60.0] and before.price[2] == 3.0
    assert (
        dearer.price_band.tolist()
        == ItemMatrix(before.ids, columns(lines) | {"price": dearer.price}).price_band.tolist()
    )
    for name in ("title", "url"):
        assert dearer.shown[name] is before.shown[name]
    assert dearer.category is before.category and dearer.brand is before.brand
    called = before.listed(np.array([2]), columns(lines[2:3]) | {"title": ["Mug"], "url": ["/"]})
    assert called.shown["title"][2] == "Mug" and before.shown["title"][2] == "title 2"
    assert called.shown["url"] is before.shown["url"] and called.category is before.category
    moved = before.listed(np.array([2]), columns([{**lines[2], "category_path": "Home/Toys"}]))
    assert moved.categories != before.categories and moved.category[2] != before.category[2]
