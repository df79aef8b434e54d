"""The whole path on a tiny shop, every part real, from the export to replay and faults over HTTP."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from redis import Redis
from shops.service import free_port

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.clock import instant
from feature_repo.offline import build
from feature_repo.offline.timeline import historical
from feature_repo.online.changes import APPLIED_TS
from feature_repo.params import home as elsewhere
from feature_repo.params import load, shop
from feature_repo.ports import password_file
from monitoring.drift.distances import DriftParams, compare
from pipelines.blend import blend, order
from pipelines.protocol import ranker_data
from pipelines.protocol.queries import make_queries, product_events
from pipelines.release import evaluate, gate
from pipelines.retrain.refresh import RefreshParams, refreshed, tried
from pipelines.simulate.crowd import drive
from pipelines.simulate.world import World
from serving.release import bundle as serving_bundle
from training.ranking import ranker

pytest_plugins = ("shops.whole",)

ROOT = Path(__file__).resolve().parents[2]


def report(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((home / "data/reports/evaluate.json").read_bytes())
    return found


def test_a_release_is_refreshed_with_later_events_and_tried_on_the_day_after(home: Path) -> None:
    candidate, written = home / "data/bundles/candidate", home / "refreshed"
    written.mkdir()
    trial = tried(candidate, load("refresh", RefreshParams), written)
    assert trial.queries >= 20 and trial.ndcg[1] > 0.02 and trial.interval[0] < trial.interval[1]
    manifest = orjson.loads((candidate / "manifest.json").read_bytes())
    until = instant(int(product_events()["event_ts"].max()) + 1)
    fresh = serving_bundle.verify(refreshed(candidate, until, written, trial))
    changed = {name for name, file in fresh["files"].items() if file != manifest["files"][name]}
    tables = {"covisit.npz", "next.npz", "ease.npz", "als_items.npy", "attraction.npy", "rails.json"}
    assert tables <= changed <= tables | {"together.npz", "carted.npz"}  # links are the catalogue's
    assert fresh["refreshed"]["of"] == manifest["digest"] and fresh["space"] == manifest["space"]
    (home / "again").mkdir()
    again = refreshed(written / fresh["digest"], until, home / "again")
    assert serving_bundle.verify(again)["digest"] == fresh["digest"]  # same events, same bytes


def test_our_lists_beat_popularity_and_cover_more(home: Path) -> None:
    models = report(home)["models"]
    assert models["endcap"]["ndcg_at_12"] > models["popularity"]["ndcg_at_12"]
    assert models["endcap"]["coverage_at_12"] > models["popularity"]["coverage_at_12"]
    assert models["endcap"]["ndcg_low"] <= models["endcap"]["ndcg_at_12"] <= models["endcap"]["ndcg_high"]
    assert set(models) == {"endcap", "popularity", "covisit", "als", "ease", "tower"}


def test_lists_are_measured_beside_peers_and_the_truth(home: Path) -> None:
    command = [sys.executable, "benchmarks/quality.py", "--sample", "60", "--validation", "30", "--peers"]
    _run([*command, "co-visits"], dict(os.environ))
    models = orjson.loads((home / "data/reports/quality_simulated.json").read_bytes())["models"]
    assert models["endcap, whole"]["ndcg_at_12"] > models["own popular"]["ndcg_at_12"] > 0
    assert models["attainable"]["of_attainable"] == 1.0 > models["true best list"]["of_attainable"]


def test_slices_partition_the_queries(home: Path) -> None:
    found = report(home)
    for pair in (("first_query", "later_query"), ("known_user", "anonymous")):
        assert sum(found["slices"].get(name, {"queries": 0})["queries"] for name in pair) == found["queries"]


def test_stages_give_the_same_bytes_again_and_by_one_process_as_by_two(home: Path) -> None:
    learned = ["data/models/blend/blend.json", "data/reports/blend.png", "data/models/order/order.json"]
    trained = ["data/features/ranker_training.parquet", "data/models/ranker/ranker.txt"]
    files = [*learned, *trained, "data/reports/evaluate.json", "data/reports/results.parquet"]
    before = [hashlib.sha256((home / name).read_bytes()).hexdigest() for name in files]
    params = yaml.safe_load((home / "params.yaml").read_text())
    assert params["queries"]["processes"] == 2
    params["queries"]["processes"] = 1
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in (blend, ranker_data, ranker, order, evaluate):
        stage.main()
    assert [hashlib.sha256((home / name).read_bytes()).hexdigest() for name in files] == before


def test_spark_gives_the_same_quotas_training_set_and_lists(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="pyspark is not installed; `make spark` installs it and runs this")
    there = tmp_path / "spark"
    shutil.copytree(home, there, ignore=shutil.ignore_patterns("run", "bundles", "*activity.parquet"))
    params = yaml.safe_load((there / "params.yaml").read_text())
    params["features"]["slice_events"] = 5_000
    (there / "params.yaml").write_text(yaml.safe_dump(params | {"offline": "spark"}))
    names = ["models/blend/blend.json", "features/ranker_training.parquet", "reports/results.parquet"]
    for name in names:
        (there / "data" / name).unlink()
    with elsewhere(there):
        for stage in (build, blend, ranker_data, evaluate):
            stage.main()
        assert (there / "data/features/item_activity.parquet").is_dir()
    for name in names:
        assert (there / "data" / name).read_bytes() == (home / "data" / name).read_bytes(), name


def test_training_values_are_those_that_feast_gives_for_the_instant(home: Path) -> None:
    table = pq.read_table(home / "data/features/ranker_training.parquet").to_pandas()
    constants = yaml.safe_load((home / "params.yaml").read_text())["queries"]
    events = product_events(home / "data/raw")
    rng = np.random.default_rng(constants["seed"])
    queries = {
        q.id: q for q in make_queries(events, shop().rank_from, shop().test_from, constants["ranker"], rng)
    }
    sample = table.sample(200, random_state=1)
    asked = pd.DataFrame(
        {
            "item_id": sample["item_id"].tolist(),
            "user_id": [queries[i].user_id for i in sample["query_id"]],
            "session_id": [queries[i].session_id for i in sample["query_id"]],
            "event_timestamp": pd.to_datetime(
                [queries[i].now - 1 for i in sample["query_id"]], unit="us", utc=True
            ).as_unit("us"),
        }
    )
    rows = historical(asked, "ranker")
    assert set(COLUMNS) < set(table.columns)
    for found, stored, query in zip(
        sample.to_dict("records"), rows.to_dict("records"), sample["query_id"], strict=True
    ):
        activity, catalogue = stored["item_activity"], stored["item_catalogue"]
        views = 0.0
        if activity:
            views = activity["views_24h"] * 2 ** (-(queries[query].now - activity["at"]) / 86_400_000_000)
        assert found["views_24h"] == pytest.approx(views, rel=1e-5, abs=1e-7)
        assert found["price_log"] == pytest.approx(np.log(catalogue["price"]), rel=1e-5)
        assert found["session_views"] == stored["session_context"]["views"]


def test_a_gate_that_is_not_met_exits_1_and_says_by_how_much(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "params.yaml"
    kept, verdict = path.read_text(), (home / "data/reports/gate.json").read_bytes()
    params = yaml.safe_load(kept)
    params["gate"]["min_coverage"] = 0.999
    path.write_text(yaml.safe_dump(params))
    try:
        assert gate.main() == 1
        assert not orjson.loads((home / "data/reports/gate.json").read_bytes())["passed"]
    finally:
        path.write_text(kept)
        (home / "data/reports/gate.json").write_bytes(verdict)
    assert "missing by" in capsys.readouterr().out


@pytest.fixture(scope="module")
def live(home: Path) -> Iterator[dict[str, str]]:
    """The stack of `endcap up` on free ports, with the release promoted and features as of the test cut."""
    ports = [free_port() for _ in range(3)]
    names = ("ENDCAP_REDIS_PORT", "ENDCAP_SERVICE_PORT", "ENDCAP_CONSOLE_PORT")
    env = {**os.environ, **dict(zip(names, map(str, ports), strict=True)), "ENDCAP_REPLAY": "1"}
    env.pop("REDIS_URL", None)
    env |= {"URL": f"http://127.0.0.1:{ports[1]}"}
    try:
        _endcap(env, "up", "redis")
        _endcap(env, "promote", "--direct")
        _endcap(env, "materialize", "--fresh", "--forget-log", "--as-of", shop().test_from.isoformat())
        _endcap(env, "up")
        yield env
    finally:
        _endcap(env, "down")


def test_a_replay_over_http_gives_the_offline_lists_and_values(home: Path, live: dict[str, str]) -> None:
    _endcap(live, "replay", "--queries", "60")
    found = orjson.loads((home / "data/reports/replay.json").read_bytes())
    assert found["asked"] == 60 and found["equal_slots"] == found["slots"] > 500
    assert found["unequal_values"] == {} and found["values"] > 500 * 28
    assert found["item_changes"] == 10 and "born" in found["born"]


def test_an_undisturbed_shop_shows_no_drift_and_what_is_planted_is_named(
    home: Path, live: dict[str, str]
) -> None:
    world = World.load(home / "data/export/truth.npz")
    with Redis(port=int(live["ENDCAP_REDIS_PORT"]), password=password_file().read_text()) as redis:
        begun = instant(int(redis.get(APPLIED_TS) or 0))  # where the replay left the shop's clock
    drive(live["URL"], world, np.random.default_rng(4), shoppers=150, start=begun)
    _endcap(live, "drift")
    found = orjson.loads((home / "data/reports/drift.json").read_bytes())
    assert {c["name"]: c["finding"] for c in found["columns"] if c["drifted"]} == {}
    assert found["answers_live"] > 100 and found["alone"] < 0.4
    seen = pd.read_parquet(home / "data/feedback/live_features.parquet")
    usual, dearer = pd.read_parquet(home / "data/reports/reference.parquet"), seen["price_log"] + np.log(1.3)
    for planted in ({"price_log": dearer}, {"views_24h": 0.0, "views_7d": 0.0}, {"device": 3.0}):
        drift, _, _ = compare(usual, seen.assign(**planted), load("drift", DriftParams))
        assert {column.name for column in drift.columns if column.drifted} == set(planted)


def test_an_event_changes_the_next_answer(live: dict[str, str]) -> None:
    question = {"surface": "homepage_hero", "session_id": "fresh visit 1"}  # none of the holdout
    with httpx.Client(base_url=live["URL"], timeout=20) as client:
        told = client.post("/v1/recommend", json=question).json()
        before = [slot["item_id"] for slot in told["items"]]
        viewed = {"event_id": "e-1", "type": "product_viewed", "session_id": question["session_id"]}
        answer = client.post("/v1/events?wait=1", json={"events": [viewed | {"item_id": before[5]}]})
        assert answer.json()["applied"] is True
        again = client.post("/v1/recommend", json=question).json()
    assert (told["arm"], again["arm"], again["degraded"]) == ("champion", "champion", None)
    assert [slot["item_id"] for slot in again["items"]] != before


@pytest.mark.parametrize(
    ("script", "options", "told"),
    [
        ("load", ("--rate", "20", "--seconds", "1"), r"20/s .* 0 *\n"),
        ("stream", ("--rate", "200", "--seconds", "2"), r"200/s .* none\n(.*rows/s\n){2}"),
    ],
)
def test_a_benchmark_of_the_running_shop_runs(
    live: dict[str, str], script: str, options: tuple[str, ...], told: str
) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--url", live["URL"], *options]
    output = _run(command, live)
    assert "budget" in output and re.search(told, output), output


def test_answers_go_on_without_the_consumer_and_without_redis(live: dict[str, str]) -> None:
    question = {"surface": "homepage_hero", "session_id": "s", "user_id": "u"}
    with httpx.Client(base_url=live["URL"], timeout=20) as client:
        for victim in ("stream", "redis"):
            _endcap(live, "down", victim)
            for _ in range(20):
                answer = client.post("/v1/recommend", json=question)
                assert answer.status_code == 200
                assert len(answer.json()["items"]) == 12
        _endcap(live, "up", "redis", "stream")
        _until_not_degraded(client, question)


ALONE = """
ip link set lo up
"$PYTHON" -m pipelines text && "$PYTHON" -m pipelines evaluate && "$PYTHON" -m pipelines up || exit 1
"$PYTHON" -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())' "$ASK"
status=$?
"$PYTHON" -m pipelines down
exit $status
"""


def test_stages_and_service_need_no_network(home: Path, live: dict[str, str]) -> None:
    """In a network namespace that has nothing but a loopback interface."""
    probe = subprocess.run(
        ["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"network namespaces are not allowed here: {probe.stderr.strip()}")
    _endcap(live, "down")
    env = live | {"PYTHON": sys.executable, "ASK": f"{live['URL']}/v1/recommend?surface=homepage_hero"}
    alone = _run(["unshare", "-rn", "sh", "-c", ALONE], env)
    assert '"served_from":"live"' in alone


def _until_not_degraded(client: httpx.Client, question: dict[str, str]) -> None:
    for _ in range(100):
        if client.post("/v1/recommend", json=question).json()["degraded"] is None:
            return
        time.sleep(0.1)
    raise AssertionError("the service did not recover within 10 s after Redis came back")


def _endcap(env: dict[str, str], *args: str) -> None:
    _run([sys.executable, "-m", "pipelines", *args], env)


def _run(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout
