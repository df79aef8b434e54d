"""The gate's decisions: what passes, what fails and by how much it says so."""

from __future__ import annotations

import copy
import doctest
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from shops.gate_bar import PARAMS

from feature_repo.errors import DataError
from feature_repo.places import EVALUATION, LEAKAGE, PROPENSITIES, SCORES, VERDICT, VERDICT_PAGE
from pipelines.gates import bar
from pipelines.gates.bar import FEW, Evaluation, GateError, GateParams, Verdict, honest, judge
from pipelines.gates.scores import Part, Scores
from pipelines.protocol.metrics import fingerprint
from pipelines.release import gate as job

PARAMS_FILE = Path(__file__).resolve().parents[3] / "params.yaml"


def report(ndcg: float = 0.30, coverage: float = 0.80, **changes: Any) -> dict[str, Any]:
    """An evaluation whose best baseline, ease, has NDCG@12 0.25."""
    models = {
        name: {
            "ndcg_at_12": value,
            "ndcg_low": value - 0.01,
            "ndcg_high": value + 0.01,
            "coverage_at_12": cover,
        }
        for name, value, cover in (("endcap", ndcg, coverage), ("popularity", 0.1, 0.03), ("ease", 0.25, 0.6))
    }
    slices = {
        "first_query": {"queries": 400, "ndcg_at_12": ndcg, "coverage_at_12": coverage},
        "cold_item": {"queries": 20, "ndcg_at_12": 0.2, "coverage_at_12": 0.4},
        "email": {"queries": 0, "ndcg_at_12": None, "coverage_at_12": None},
    }
    base = {"protocol": "session_continuation", "k": 12, "queries": 1000, "candidates": 445, "bundle": None}
    span = {"from": "2026-02-23T00:00:00Z", "to": "2026-03-02T00:00:00Z"}
    return base | {"span": span, "models": models, "slices": slices} | changes


def evaluation(**changes: Any) -> Evaluation:
    return Evaluation.from_report(report(**changes))


def failed(candidate: Evaluation, champion: Evaluation | None = None) -> list[str]:
    return [check.name for check in judge(candidate, PARAMS, champion).checks if not check.passed]


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(bar) == (0, 1)


def test_without_a_champion_the_bar_is_the_best_baseline() -> None:
    verdict = judge(evaluation(ndcg=0.28), PARAMS)
    assert (verdict.passed, verdict.against) == (True, "ease")
    assert {check.name: check.needed for check in verdict.checks} == {
        "queries": 100,
        "ndcg_at_12": pytest.approx(0.275),
        "coverage_at_12": 0.6,
    }


def test_a_failure_says_by_how_much() -> None:
    verdict = judge(evaluation(ndcg=0.25, coverage=0.5), PARAMS)
    assert not verdict.passed
    assert verdict.shortfall() == (
        "ndcg_at_12 is 0.2600, needed 0.2750 (upper end of its interval: ease x 1.1), missing by 0.0150, "
        "next: `endcap evaluate --show`, `endcap compare` tell where it is lost; "
        "coverage_at_12 is 0.5000, needed 0.6000 (the floor), missing by 0.1000, "
        "next: `diversify.tail_share`, `blend.floors`: more of the long tail"
    )


def test_the_best_part_itself_passes_the_shipped_bar_and_the_check_names_what_serves() -> None:
    shipped = GateParams(**yaml.safe_load(PARAMS_FILE.read_text())["gate"])
    part = judge(evaluation(ndcg=0.25, serves="ease"), shipped)
    assert part.passed and part.checks[1].because == "upper end of its interval: ease x 0.995; ease serves"
    worse = judge(evaluation(ndcg=0.23, serves="ranker"), shipped)
    assert worse.shortfall().startswith(
        "ndcg_at_12 is 0.2400, needed 0.2487 (upper end of its interval: ease"
    )


def test_a_champion_of_the_same_queries_is_the_bar_even_below_the_baselines() -> None:
    assert failed(evaluation(ndcg=0.20), champion=evaluation(ndcg=0.20)) == []
    assert failed(evaluation(ndcg=0.1981), champion=evaluation(ndcg=0.20)) == []
    assert failed(evaluation(ndcg=0.1979), champion=evaluation(ndcg=0.20)) == ["ndcg_at_12"]


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"span": {"from": "2026-02-16T00:00:00Z", "to": "2026-02-23T00:00:00Z"}},
        {"protocol": "next_item"},
        {"queries": 999},
        {"candidates": 446},
    ],
)
def test_a_champion_of_other_queries_is_no_bar(elsewhere: dict[str, Any]) -> None:
    verdict = judge(evaluation(ndcg=0.28), PARAMS, evaluation(ndcg=0.9, **elsewhere))
    assert (verdict.passed, verdict.against) == (True, "ease")


def test_coverage_may_not_fall_far_below_the_champions_even_above_the_floor() -> None:
    assert failed(evaluation(coverage=0.76), evaluation(coverage=0.80)) == []
    assert failed(evaluation(coverage=0.74), evaluation(coverage=0.80)) == ["coverage_at_12 kept"]


def test_too_few_queries_prove_nothing() -> None:
    assert "queries" in failed(evaluation(queries=99), champion=evaluation(queries=2000))


def test_a_small_shop_gets_its_second_release_too() -> None:
    champion = evaluation(queries=99, ndcg=0.30)
    assert failed(evaluation(queries=99, ndcg=0.30), champion) == []
    assert failed(evaluation(queries=99, ndcg=0.20), champion)[0] == "ndcg_at_12"
    of_next_week = evaluation(queries=98, ndcg=0.20)
    assert (failed(of_next_week, champion), judge(of_next_week, PARAMS, champion).against) == ([], FEW)


def test_a_first_release_on_few_queries_is_judged_by_the_coverage_that_so_few_lists_allow() -> None:
    """Nothing serves yet that it could be worse than, and 30 lists of 12 cannot show 445 items."""
    verdict = judge(evaluation(ndcg=0.0, coverage=0.34, queries=30), PARAMS)
    assert (verdict.passed, verdict.against) == (True, FEW)
    assert failed(evaluation(ndcg=0.9, coverage=0.33, queries=30)) == ["coverage_at_12"]
    assert verdict.checks[0].because == "the floor x 0.55, the share that 30 lists could reach"
    assert judge(evaluation(queries=0, candidates=1, ndcg=0.0, coverage=0.0), PARAMS).passed


def test_what_knows_the_future_fails_the_gate_and_is_named() -> None:
    found = {"rows": 200, "rows_that_know_the_future": 0, "culprits": [], "queries": 100}
    found |= {"queries_that_know_their_answer": 3, "max_known_labels": 0.03}
    assert all(check.passed for check in honest(found))
    leaking = found | {"rows_that_know_the_future": 1, "culprits": ["session_context.views"]}
    assert Verdict(honest(leaking), "ease").shortfall() == (
        "rows blind to the future is 0.9950, needed 1.0000 (session_context.views), missing by 0.0050, "
        "next: `endcap leakage` tells which rows and of what they were made"
    )
    known = honest(found | {"queries_that_know_their_answer": 4})
    assert [check.name for check in known if not check.passed] == ["queries blind to their answer"]
    assert all(check.passed for check in honest(found | {"rows": 0, "queries": 0}))


def test_a_lead_that_chance_may_hide_is_no_failure() -> None:
    assert failed(evaluation(ndcg=0.266)) == []  # its interval ends at .276
    assert failed(evaluation(ndcg=0.264)) == ["ndcg_at_12"]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_better_model_never_fails_where_a_worse_one_passes(low: float, high: float, bar: float) -> None:
    low, high = sorted((low, high))
    for champion in (None, evaluation(ndcg=bar)):
        assert set(failed(evaluation(ndcg=high), champion)) <= set(failed(evaluation(ndcg=low), champion))


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.3"])
def test_a_number_that_is_none_is_refused(value: Any) -> None:
    broken = report()
    broken["models"]["endcap"]["ndcg_at_12"] = value
    with pytest.raises(GateError, match=r"models\.endcap\.ndcg_at_12: .* is not a number"):
        Evaluation.from_report(broken)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r.pop("span"), "'span'"),
        (lambda r: r["models"].pop("endcap"), "endcap and at least one baseline"),
        (lambda r: r.update(models={"endcap": r["models"]["endcap"]}), "at least one baseline"),
    ],
)
def test_an_incomplete_report_is_refused(spoil: Callable[[dict[str, Any]], Any], message: str) -> None:
    broken = report()
    spoil(broken)
    with pytest.raises(GateError, match=message):
        Evaluation.from_report(broken)


def test_the_fingerprint_is_of_the_content_not_of_the_layout() -> None:
    turned = dict(reversed(report().items()))
    assert fingerprint(turned) == fingerprint(report())
    other = copy.deepcopy(turned)
    other["models"]["ease"]["ndcg_at_12"] += 1e-9
    assert fingerprint(other) != fingerprint(report())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    params = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text())
    params["gate"] = {name: getattr(PARAMS, name) for name in PARAMS.__dataclass_fields__}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "data" / "reports").mkdir(parents=True)
    clean = {"rows": 9, "rows_that_know_the_future": 0, "culprits": [], "queries": 9}
    clean |= {"queries_that_know_their_answer": 0, "max_known_labels": 0.03}
    (tmp_path / LEAKAGE).write_bytes(orjson.dumps(clean))
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def judged(home: Path, **changes: Any) -> tuple[int, dict[str, Any]]:
    (home / EVALUATION).write_bytes(orjson.dumps(report(**changes)))
    return job.main(), orjson.loads((home / VERDICT).read_bytes())


def test_the_job_passes_and_leaves_its_verdict_and_picture(home: Path) -> None:
    code, written = judged(home)
    assert code == 0
    assert written["passed"] is True
    assert written["evaluation"] == fingerprint(report())
    assert written["champion"] is None
    assert (home / VERDICT).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_job_refuses_a_slice_of_this_evaluation_alone(home: Path) -> None:
    told = np.arange(400) % 2 == 0
    both, visits = {"even": told, "odd": ~told}, np.arange(400, dtype=np.int32)
    part = Part("asked", "ease", visits, 0.3 * told, np.full(400, 0.25), both)
    Scores({"endcap": part}).write(home / SCORES, fingerprint(report()))
    code, written = judged(home)
    failing = [check for check in written["checks"] if not check["passed"]]
    assert (code, [check["name"] for check in failing]) == (1, ["odd NDCG@12 no worse"])
    assert "what to do" in (home / VERDICT_PAGE).read_text()
    assert judged(home, bundle="another")[0] == 0  # whose scores these are not


def test_the_job_fails_with_a_table_of_what_is_missing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, written = judged(home, coverage=0.45)
    assert code == 1
    assert [check["name"] for check in written["checks"] if not check["passed"]] == ["coverage_at_12"]
    printed = capsys.readouterr().out
    assert "0.15 (25.0%)" in printed
    assert "nothing is promoted" in printed


def test_the_job_prints_its_verdict_for_machines(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / EVALUATION).write_bytes(orjson.dumps(report()))
    assert job.main(as_json=True) == 0
    assert orjson.loads(capsys.readouterr().out) == orjson.loads((home / VERDICT).read_bytes())


@pytest.mark.parametrize(("clicks", "warned"), [(0.02, True), (0.6, False)])
def test_logged_propensities_warn_of_a_candidate_and_decide_nothing(
    home: Path, clicks: float, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The candidate shows `rare` always, which was shown to one in four."""
    plain = judged(home)
    rare = np.arange(8000) % 4 == 0
    reward = np.random.default_rng(1).random(8000) < np.where(rare, clicks, 0.1)
    columns = {"unit": [f"v{n}" for n in range(8000)], "action": np.where(rare, "rare", "usual")}
    columns |= {"propensity": np.where(rare, 0.25, 0.75), "candidate": np.where(rare, 1.0, 0.0)}
    (home / PROPENSITIES).parent.mkdir(parents=True)
    pq.write_table(pa.table(columns | {"reward": reward.astype(float)}), home / PROPENSITIES)
    code, written = judged(home)
    told = written.pop("off_policy")
    assert (code, written) == plain
    assert told["snips"]["low"] <= clicks <= told["snips"]["high"]
    assert (told["effective"], told["clipped"], told["dr"]) == (2000.0, 0.0, None)
    printed = capsys.readouterr().out
    assert "8,000 places worth 2,000" in printed
    assert ("warning: off-policy CTR 0.0" in printed) == bool(told["warning"]) == warned


def test_without_an_evaluation_the_job_says_what_to_run(home: Path) -> None:
    with pytest.raises(DataError, match="run `endcap evaluate`"):
        job.main()
