"""What only a bundle can show: that it was replayed, is no slower and no larger, and whether lift is told."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml
from redis import Redis
from shops import tiny_bundle

from feature_repo.params import load
from feature_repo.places import PARITY, REPLAY
from pipelines.gates.bar import Check, GateParams, Verdict
from pipelines.gates.dossier import write_page
from pipelines.gates.readiness import holdout, parity
from pipelines.gates.speed import answered, costs, desk
from serving.release.state import EXPOSURES

SHARES = {"slots": 0.91, "candidates": 1.0, "values": 0.998}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(tiny_bundle.PARAMS.read_text())
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    (tmp_path / PARITY).parent.mkdir(parents=True)
    return tmp_path


@pytest.fixture
def release(home: Path) -> Path:
    return tiny_bundle.make(home)


def refusal(check: Check) -> str:
    return Verdict((check,), "champion").shortfall()


def test_a_release_that_answers_otherwise_over_http_is_refused(home: Path) -> None:
    report = {"bundle": "ours", "passed": False, "shares": SHARES, "asked": 500}
    (home / PARITY).write_bytes(orjson.dumps(report))
    assert refusal(parity("ours")) == (
        "parity of the replay is 0.0000, needed 1.0000 (500 questions: 91.000% of the slots, 100.000% of the "
        "candidates, 99.800% of the values equal the offline ones), missing by 1.0000, next: "
        "data/reports/parity.json names the culprits; repair it and run `dvc repro replay`"
    )
    (home / REPLAY).write_bytes(orjson.dumps(report | {"bundle": "other", "passed": True}))
    assert parity("other").state == "passed"


def test_a_release_that_nobody_replayed_is_told_so_and_let_through(home: Path) -> None:
    check = parity("ours")
    assert (check.state, check.passed) == ("told", True)
    assert check.because == "it was not replayed; `dvc repro replay` does it"


def test_without_a_holdout_it_is_said_that_no_lift_can_be_told(home: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        for arm, unit in (("holdout", "u1"), ("holdout", "u1"), ("holdout", "u2"), ("champion", "u3")):
            redis.xadd(EXPOSURES, {"exposure": orjson.dumps({"arm": arm, "unit": unit})})
        assert holdout(redis).state == "passed"
        assert holdout(redis).because == "2 shoppers of it among the newest 4 answers"
        params = yaml.safe_load((home / "params.yaml").read_text())
        params["router"]["holdout_share"] = 0.0
        (home / "params.yaml").write_text(yaml.safe_dump(params))
        off = holdout(redis)
    assert (off.state, off.value) == ("told", 0.0)
    assert off.because.startswith("router.holdout_share is 0: no lift can be told")


def test_a_first_release_has_its_speed_and_size_told(release: Path) -> None:
    latency, size = costs(release, None, replace(load("gate", GateParams), speed_questions=16))
    assert latency.passed and 0 < latency.value < 1000 and "p50" in latency.because
    assert size.state == "passed" and size.value == pytest.approx(
        sum(file.stat().st_size for file in release.iterdir()) / 1e6
    )


def test_a_slow_ranker_is_seen_beside_the_champion_whatever_else_the_machine_does(release: Path) -> None:
    class Slow:
        def __init__(self, ranker: Any) -> None:
            self._ranker = ranker

        def predict(self, rows: Any) -> Any:
            until = time.process_time() + 0.02
            while time.process_time() < until:
                pass
            return self._ranker.predict(rows)

    champion = desk(release, 8)
    slow = champion.release
    candidate = champion._replace(release=replace(slow, ranker=Slow(slow.ranker)))
    ours, theirs = answered([candidate, champion])
    assert np.quantile(ours, 0.99) > np.quantile(theirs, 0.99) + 10


def test_a_slower_and_a_larger_bundle_are_refused_with_both_numbers(release: Path, home: Path) -> None:
    params = replace(load("gate", GateParams), speed_questions=8)
    heavy = tiny_bundle.make(home, n=400, seed=1)
    _, size = costs(heavy, release, params)
    assert refusal(size).startswith(
        f"size MB is {size.value:.4f}, allowed at most {size.needed:.4f} (champion's "
    )
    assert refusal(size).endswith("did the catalogue grow as much? then `endcap promote --force --why ...`")
    assert costs(release, release, params)[1].passed
    latency, _ = costs(release, release, replace(params, fast_ms=0.0, max_slowdown=0.01))
    assert " x 0.01, or gate.fast_ms; p50 " in refusal(latency)
    assert "next: quotas and `k` of `retrieve`, trees of `ranker`" in refusal(latency)
    assert costs(release, heavy, params)[0].passed  # below fast_ms, or not slower


def test_a_champion_that_cannot_be_loaded_stands_in_nobodys_way(release: Path, home: Path) -> None:
    damaged = tiny_bundle.make(home, seed=2)
    (damaged / "ranker.txt").write_text("another")
    latency, size = costs(release, damaged, replace(load("gate", GateParams), speed_questions=4))
    assert latency.passed and size.passed
    assert "champion cannot be loaded" in latency.because


def test_the_page_has_every_line_the_failed_ones_first_and_draws_the_slices(tmp_path: Path) -> None:
    fine = Check("queries", 900, 200, "the floor")
    worse = Check("anonymous NDCG@12 no worse", -0.05, -0.03, "champion's .3 & <b>", interval=(-0.05, -0.04))
    write_page(tmp_path / "gate.html", "Gate, <shop>", Verdict((fine, worse), "champion"), ["warning: a & b"])
    page = (tmp_path / "gate.html").read_text()
    assert page.index("anonymous NDCG@12") < page.index("<td>queries")
    assert "FAILED by 1</b> of 2 lines" in page and "champion&#x27;s .3 &amp; &lt;b&gt;" in page
    assert "Gate, &lt;shop&gt;" in page and "warning: a &amp; b" in page
    assert page.count("src='data:image/png;base64,") == 1 and "<script" not in page and "http" not in page
    again = tmp_path / "again.html"
    write_page(again, "Gate, <shop>", Verdict((fine, worse), "champion"), ["warning: a & b"])
    assert again.read_text() == page
