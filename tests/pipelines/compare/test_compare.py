"""`endcap compare`: two small evaluations whose difference is known, and what cannot be compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.places import COMPARISON, ITEMS, RESULTS
from pipelines import cli
from pipelines.compare.differences import Difference, changed, measured, paired, sliced
from pipelines.compare.lists import Overlap, examples, overlap
from pipelines.compare.sides import CompareError, side
from pipelines.protocol.metrics import OURS
from pipelines.protocol.results import SLICES, write_results

ROOT = Path(__file__).resolve().parents[3]
QUERIES = 60


def evaluated(home: Path, ndcg: Sequence[float], shop: str = "tea", lists: str = "x", **params: str) -> Path:
    """A project folder in which these queries were answered, two of a session, in item places of `lists`."""
    (home / "data/raw").mkdir(parents=True)
    text = (ROOT / "params.yaml").read_text()
    for old, new in params.items():
        assert f"{old}: " in text
        text = text.replace(f"{old}: ", f"{old}: {new} #", 1)
    (home / "params.yaml").write_text(text)
    queries = [
        SimpleNamespace(
            session_id=f"s{n // 2}", now=n, history=("pot",), relevant=frozenset({"cup", f"x{n}"})
        )
        for n in range(len(ndcg))
    ]
    slices = [{name: name == "first_query" or n % 3 == 0 for name in SLICES} for n in range(len(ndcg))]
    measures = {"ndcg_at_12": ndcg, "recall_at_12": ndcg, "recall_at_120": np.ones(len(ndcg))}
    items = [[f"{lists}{n}", "cup", "jar"] for n in range(len(ndcg))]
    write_results(home / RESULTS, queries, items, measures, slices)  # type: ignore[arg-type]
    ours = {"coverage_at_12": 0.5, "novelty": 3.0, "gini": 0.2}
    report = {"shop": shop, "serves": "blend", "models": {OURS: ours}}
    (home / "data/reports/evaluate.json").write_bytes(orjson.dumps(report))
    pq.write_table(pa.table({"item_id": ["cup", "pot"], "title": ["A cup [red]", "A pot"]}), home / ITEMS)
    return home


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(2).uniform(0.1, 0.9, QUERIES)


def test_a_gain_in_every_query_is_found_though_queries_differ_more_than_it(
    tmp_path: Path, noise: np.ndarray
) -> None:
    gain = noise + np.where(np.arange(QUERIES) % 4 == 0, 0.04, 0.02)
    a, b = side(str(evaluated(tmp_path / "a", noise))), side(str(evaluated(tmp_path / "b", gain)))
    ndcg, _, wide, coverage, *_ = measured(paired(a, b), a, b, seed=1)
    assert noise.std() > 0.1  # unpaired intervals would be wider than the gain
    assert ndcg.b - ndcg.a == pytest.approx(0.025, abs=1e-6)
    assert ndcg.low is not None and ndcg.high is not None and 0.02 < ndcg.low < 0.025 < ndcg.high < 0.03
    assert (ndcg.verdict, wide.verdict, coverage.verdict) == ("better", "", "")
    assert (wide.low, wide.high, coverage.low) == (0.0, 0.0, None)
    first, *others = sliced(paired(a, b), seed=1)
    assert (first.name, first.queries) == ("first_query", QUERIES)
    assert {one.queries for one in others} == {QUERIES // 3}


def test_the_interval_of_no_difference_holds_zero_in_nineteen_of_twenty_worlds() -> None:
    """Sessions of two queries that move together: queries taken for independent would be too sure."""
    held = 0
    for world in range(200):
        rng = np.random.default_rng(world)
        moved = np.repeat(rng.normal(0, 0.1, QUERIES // 2), 2)
        frame = {"session_id": np.repeat(np.arange(QUERIES // 2), 2), "first_query_b": np.ones(QUERIES, bool)}
        frame |= {"ndcg_at_12_a": np.full(QUERIES, 0.3), "ndcg_at_12_b": 0.3 + moved}
        frame |= {f"{name}_b": np.zeros(QUERIES, bool) for name in SLICES[1:]}
        (found,) = sliced(pd.DataFrame(frame), world)
        held += not found.verdict
    assert 180 <= held <= 198


def test_only_queries_that_both_answered_are_compared(tmp_path: Path, noise: np.ndarray) -> None:
    a, b = side(str(evaluated(tmp_path / "a", noise))), side(str(evaluated(tmp_path / "b", noise[:40])))
    assert len(paired(a, b)) == len(paired(b, a)) == 40


def test_lists_that_differ_are_shown_with_titles_best_and_worst(tmp_path: Path, noise: np.ndarray) -> None:
    other = noise.copy()
    other[7], other[9] = 1.0, 0.0
    a = side(str(evaluated(tmp_path / "a", noise)))
    both = paired(a, side(str(evaluated(tmp_path / "b", other, lists="y"))))
    assert overlap(both) == Overlap(same=0.0, common=2.0)
    gained, lost = examples(both, {"pot": "A pot"}, count=1)
    assert (gained.after, gained.b, gained.only_a, gained.only_b) == ("A pot", 1.0, ["x7"], ["y7"])
    assert (lost.b, lost.only_b, lost.wanted) == (0.0, ["y9"], ["x9"])


def test_params_that_differ_are_told_and_those_of_one_side_alone() -> None:
    assert changed({"a.x": 1, "a.y": [1]}, {"a.y": [1], "b": 2}) == {"a.x": (1, None), "b": (None, 2)}


def test_the_command_prints_eighty_columns_and_leaves_json_and_a_picture(
    tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (
        evaluated(tmp_path / "a", noise),
        evaluated(tmp_path / "b", noise * 0.9, lists="y", covisit_decay="0.1"),
    )
    monkeypatch.setenv("ENDCAP_HOME", str(b))
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["compare", str(a)]) == 0
    told = capsys.readouterr().out
    assert "worse" in told and "retrieve.covisit_decay" in told and "after A pot" in told
    assert "60 queries are in both" in told
    drawn = [line for line in told.splitlines() if str(tmp_path) not in line]  # paths are as long as they are
    assert max(len(line) for line in drawn) <= 80
    found = orjson.loads((b / COMPARISON).read_bytes())
    assert found["params"] == {"retrieve.covisit_decay": [0.6, 0.1]}
    assert (b / COMPARISON.with_suffix(".png")).stat().st_size > 5_000
    assert cli.run(["compare", str(a), str(a), "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)["lists"] == {"same": 1.0, "common": 3.0}


def test_what_cannot_be_compared_is_refused_by_name(
    tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = evaluated(tmp_path / "a", noise)
    monkeypatch.setenv("ENDCAP_HOME", str(a))
    other = side(str(evaluated(tmp_path / "b", noise, shop="wine")))
    with pytest.raises(
        CompareError, match=r"is of shop tea, .* of shop wine; allowed: two evaluations of one shop"
    ):
        paired(side(str(a)), other)
    later = side(str(a))
    later.results["now"] += 1_000
    with pytest.raises(CompareError, match=r"none of the 60 queries .* with the same test_from"):
        paired(side(str(a)), later)
    with pytest.raises(CompareError, match=r"main: is no folder, and .* is no DVC repository"):
        side("main")
    (a / RESULTS).unlink()
    with pytest.raises(
        CompareError, match=r"data/reports/results.parquet is neither there nor in DVC's cache; evaluate"
    ):
        side(str(a))
    shutil.copy(a / ITEMS, a / RESULTS)
    with pytest.raises(
        CompareError, match=r"of another version or program; run `dvc repro evaluate` there again"
    ):
        side(str(a))


def test_a_difference_is_a_verdict_only_where_its_interval_leaves_out_zero() -> None:
    assert [Difference("x", 9, 0, 1, *ends).verdict for ends in ((0.1, 1), (-1, -0.1), (-1, 1), (0, 0))] == [
        "better",
        "worse",
        "",
        "",
    ]
