"""What counts as trouble, said with its numbers and a command; what cannot be looked at says nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis

from feature_repo.params import load
from feature_repo.places import RETRAINED
from monitoring.alerting import troubles
from monitoring.alerting.troubles import AlarmParams
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.sequential import ArmStatistics
from pipelines.cli import places
from pipelines.retrain import retrain
from serving.release import state
from serving.release.state import Act, Release

ACT = Act("guard", "CTR is credibly down by more than 3 %", 1, {"ctr": 0.04, "champion_ctr": 0.05})
ONE, TWO = (Release(letter * 16, f"data/bundles/{letter * 16}") for letter in "ab")


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def test_a_rollback_is_told_with_who_and_why_until_the_rollout_moves_on(redis: Redis) -> None:
    canary = state.start_canary(redis, state.install(redis, ONE, ACT), TWO, 10, "week", ACT)
    assert troubles.rolled_back(redis, 60.0) == []
    state.rollback(redis, canary, ACT)
    state.record(redis, "publish_rules", ACT)  # changes no release
    (found,) = troubles.rolled_back(redis, 60.0)
    assert found.told == f"rollback by guard: {TWO.digest} is no canary any more; {ACT.why}"
    assert found.numbers["champion_ctr"] == 0.05 and found.next == "endcap rollout history --last 3"
    assert troubles.rolled_back(redis, -1.0) == []
    back = state.revert(redis, state.install(redis, TWO, ACT), ONE, ACT)
    (found,) = troubles.rolled_back(redis, 60.0)
    assert found.told.startswith(f"rollback by guard: back to {ONE.digest}")
    state.start_canary(redis, back, TWO, 10, "next", ACT)
    assert troubles.rolled_back(redis, 60.0) == []


@pytest.mark.parametrize(
    "outcome, told",
    [
        (retrain.FAILED, "endcap retrain"),
        (retrain.REFUSED, "endcap gate"),
        (retrain.UNSOUND, "endcap shadow report"),
        (retrain.ON_TRIAL, ""),
    ],
)
def test_a_retrain_without_a_release_names_the_job_that_shows_why(
    tmp_path: Path, outcome: str, told: str
) -> None:
    assert troubles.not_retrained(tmp_path) == []
    held = retrain.Summary(outcome, "stage ranker ended with 1", "a" * 16)
    (tmp_path / RETRAINED).write_bytes(orjson.dumps(held))
    found = troubles.not_retrained(tmp_path)
    assert [one.next for one in found] == ([told] if told else [])
    assert all("stage ranker ended with 1" in one.told for one in found)


def test_lag_is_read_from_the_services_metrics_and_a_service_that_is_away_says_nothing() -> None:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'endcap_stream_behind_seconds{group="rows"} 75\n')
            self.wfile.write(b'endcap_stream_behind_seconds{group="history"} 2\n')

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (found,) = troubles.behind(url, 60.0)
        assert "no row of rows waits 75 s, limit 60 s" in found.told and found.next == "endcap up stream"
        assert troubles.behind(url, 80.0) == []
        server.shutdown()
    with pytest.raises(OSError):
        troubles.behind(url, 60.0)


def test_reports_are_judged_by_their_shares_and_read_again_when_written_anew(tmp_path: Path) -> None:
    report = tmp_path / "unseen.json"
    look = troubles.of_file(report, partial(troubles.unseen, limit=0.3))
    assert look() == []
    found = {"now": "2026-03-01", "hours": 72.0, "products": 400, "unseen": 190, "causes": {"outranked": 150}}
    report.write_bytes(orjson.dumps(found | {"could_be_sold": 150}))
    assert "150 of 400 products could be sold and were shown to nobody for 72 hours (38%" in look()[0].told
    report.write_bytes(orjson.dumps(found | {"could_be_sold": 100}))
    os.utime(report, ns=(1, 1))
    assert look() == []
    drift = tmp_path / "drift.json"
    columns = [{"name": f"f{i}", "drifted": i < 3} for i in range(10)]
    drift.write_bytes(orjson.dumps({"share_drifted": 0.3, "columns": columns, "answers_live": 900}))
    assert [one.told for one in troubles.drifted(drift, 0.2)] == [
        "drift: 3 of 10 features moved (limit 20%): f0, f1, f2"
    ]
    assert troubles.drifted(drift, 0.3) == []


def arm(shoppers: int, one_in: int) -> ArmStatistics:
    """Every `one_in`-th shopper clicked on one of 24 slots."""
    clicks = [int(i % one_in == 0) for i in range(shoppers)]
    return sum((ArmStatistics.of(x, 24) for x in clicks), ArmStatistics())


def test_a_holdout_that_does_better_is_told_when_that_is_credible_and_not_before() -> None:
    alarms, rollout = load("alarms", AlarmParams), load("rollout", RolloutParams)
    (found,) = troubles.no_lift(arm(20_000, 4), arm(4_000, 2), alarms, rollout)
    assert "CTR 1.04% of the champion, 2.08% of bestsellers, lift -50.0% [" in found.told
    assert found.numbers["upper"] < 0 and found.next == "endcap rollback"
    assert troubles.no_lift(arm(20_000, 2), arm(4_000, 4), alarms, rollout) == []
    assert troubles.no_lift(arm(200, 4), arm(40, 2), alarms, rollout) == []
    assert troubles.no_lift(ArmStatistics(), ArmStatistics(), alarms, rollout) == []


def test_a_disk_with_too_little_room_names_the_job_that_makes_some(tmp_path: Path) -> None:
    (found,) = troubles.disk_full(tmp_path, 1024, lambda _: 500 << 20)
    assert found.told == "disk: 500 MiB are left, limit 1,024 MiB"
    assert found.next == "endcap prune --dry-run" and found.next.split()[1] in places()
    assert troubles.disk_full(tmp_path, 1024, lambda _: 1024 << 20) == []
