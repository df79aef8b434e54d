"""Who did all there is to do in a running shop is nowhere after an erase; others are served as before."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from shops.release import write_candidate
from shops.service import SECRET_KEY, Service, running_service
from shops.small_export import event, item, run, write
from shops.storefront import act
from shops.traces import needles, traces

from feature_repo import places
from feature_repo.clock import instant
from feature_repo.eventlog.keys import DEAD
from feature_repo.offline import build
from feature_repo.persons import privacy
from monitoring.drift import drift
from monitoring.drift.distances import read_served
from monitoring.experiment import feedback
from pipelines.persons import erase
from pipelines.protocol import served
from pipelines.rails import rails
from pipelines.release.registry import CHAMPION, Registry, store
from pipelines.retrain import land, retrain
from pipelines.surfaces import email
from serving.release import state

ANN, BOB = "ann.person@shop.example", "bob-bystander"
VISITS = {ANN: ("ann-visit-1", "ann-visit-2"), BOB: ("bob-visit-1", "bob-visit-2")}
DVC = """
stages:
  ingest: {cmd: "true", deps: [data/export], outs: [data/raw]}
  features: {cmd: "true", deps: [data/raw], outs: [data/features]}
"""
RETRAINED = f"""
  gate: {{cmd: "true", deps: [{places.EVENT_LOG}], outs: [{{{places.VERDICT}: {{persist: true}}}}]}}
  bundle: {{cmd: "true", deps: [{places.VERDICT}], outs: [{{{places.CANDIDATE}: {{persist: true}}}}]}}
"""  # stages that find what they would make: fits are tested elsewhere
SECRET = {"authorization": f"Bearer {SECRET_KEY}"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Iterator[Service]:
    """A service with every answer sampled, a past in data/ and DVC's cache, and an MLflow store."""
    with (
        running_service(tmp_path_factory.mktemp("planted"), {"served_share": 1.0}) as found,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ENDCAP_HOME", str(found.home))
        patch.setenv("REDIS_URL", found.redis_url)
        past(found.home)
        store().parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(empty_registry, store())
        yield found


def past(home: Path) -> None:
    """Both have bought before: an export, its import and features, in DVC's cache."""
    told = [
        event(
            n,
            event_id=f"{user}-{n}",
            user_id=user,
            session_id=f"{user}-of-old",
            item_id="item-1",
            type="product_viewed",
        )
        for n, user in enumerate((ANN, BOB))
    ]
    write(home / "data/export", events=told, items=[item("item-1")])
    run(home / "data/export", home / "data", persons=privacy.persons())
    (home / "data/logs/items").mkdir(parents=True, exist_ok=True)
    build.main()
    (home / "dvc.yaml").write_text(DVC)
    for words in (("init", "-q", "--no-scm"), ("commit", "-q", "-f")):
        subprocess.run((sys.executable, "-m", "dvc", *words), cwd=home, check=True)


def lives(shop: Service, user: str, began: int) -> None:
    """Looks, a cart, lists on several pages, a click: all that a page of the shop would send."""
    with shop.client() as client:
        for visit in VISITS[user]:
            for n, kind in enumerate(("product_viewed", "add_to_cart")):
                told = {"event_id": f"{visit}-{n}", "event_ts": instant(began + n).isoformat(), "type": kind}
                told |= {"session_id": visit, "user_id": user, "item_id": f"item-{n + 2}"}
                send(client, told)
            for surface in ("homepage_hero", "similar_items", "pdp_fbt"):
                body = {"surface": surface, "user_id": user, "session_id": visit, "items": ["item-3"]}
                answer = client.post("/v1/recommend", json=body, headers=SECRET)
                assert answer.status_code == 200, answer.text
                click = {
                    "event_id": f"{visit}-{surface}",
                    "type": "click",
                    "session_id": visit,
                    "user_id": user,
                }
                click |= {"item_id": answer.json()["items"][0]["item_id"], "position": 1}
                click |= {"request_id": answer.json()["request_id"]}
                send(client, click)


def send(client: httpx.Client, told: dict[str, Any]) -> None:
    answer = client.post("/v1/events", json={"events": [told]})
    assert answer.status_code == 202, answer.text


def shown(shop: Service, user: str) -> list[str]:
    body = {"surface": "homepage_hero", "user_id": user, "session_id": VISITS[user][1], "debug": True}
    with shop.client() as client:
        answer = client.post("/v1/recommend", json=body, headers=SECRET).raise_for_status().json()
    return [one["item_id"] for one in answer["items"]]


def jobs() -> None:
    """All that make files or rows of what is known of shoppers."""
    command = (sys.executable, "-m", "pipelines", "stream", "--until-empty")
    subprocess.run(command, check=True, capture_output=True)
    rails.main(False)
    time.sleep(land.SETTLED_MS / 1_000)
    land.main()
    served.main()
    feedback.main(False)
    bundle = next(path for path in (erase.shop().run_dir().parents[1]).rglob("manifest.json")).parent
    told = pq.read_table(places.at(places.EVENTS), columns=["event_ts"])["event_ts"]
    later = pc.max(told).as_py() + timedelta(hours=21)  # what they looked at is a day old
    email.main(later.strftime("%Y-%m-%dT%H:%M:%SZ"), bundle)


def goes_on_trial(shop: Service, redis: Any) -> None:
    """A retrain on what was landed, its canary for every shopper, the report of what both releases served."""
    registry, champion = Registry(f"sqlite:///{store()}"), state.present(redis).champion
    registry.register(champion, {})
    registry.move_aliases({CHAMPION: champion})
    write_candidate(shop.home, "new", items=60)
    (shop.home / "dvc.yaml").write_text(DVC + RETRAINED)
    params = shop.home / "params.yaml"
    constants = yaml.safe_load(params.read_text())
    constants["rollout"]["guard_timeout_s"] = 3600.0
    constants["shadow"]["wait_s"] = 1.0  # nobody comes whose lists a shadow could make
    params.write_text(yaml.safe_dump(constants))
    asked = {"surface": "pdp_fbt", "user_id": ANN, "session_id": VISITS[ANN][1], "items": ["item-3"]}
    with shop.client() as client:

        def arm() -> str:
            return str(client.post("/v1/recommend", json=asked, headers=SECRET).json()["arm"])

        assert {arm() for _ in range(8)} == {"champion"}  # as many as the report needs
        assert retrain.main() == 0
        trial = state.present(redis)
        assert trial.challenger, (erase.shop().run_dir() / places.RETRAINED).read_text()
        state.advance(redis, trial, 100, act())
        deadline = time.monotonic() + 60
        while arm() != "challenger":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    time.sleep(0.5)  # the log of what was served is written behind the answers
    rows, _ = read_served(redis, 1000)
    nobody = {name: pd.factorize(rows[name])[0].astype(str) for name in ("request_id", "session_id")}
    rows.assign(**nobody).to_parquet(places.at(places.REFERENCE))  # as a release has it
    drift.main(reference=places.REFERENCE)


def test_the_planted_person_is_nowhere_and_the_other_is_served_as_before(shop: Service) -> None:
    began = time.time_ns() // 1_000 - 1_800_000_000
    known = privacy.persons()
    names = [ANN, *VISITS[ANN], f"{ANN}-of-old"]
    wanted = needles(*names, *map(known.of, names))
    with shop.redis() as redis:
        for user in (ANN, BOB):
            lives(shop, user, began)
        redis.xadd(DEAD, {"event": orjson.dumps({"user_id": known.of(ANN), "session_id": "x"})})
        jobs()
        goes_on_trial(shop, redis)
        log = erase.shop().run_dir() / "logs" / "service.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"refused: {ANN} ({known.of(ANN)})\n")
        held = traces(shop.home, redis, wanted)
        for part in ("data/raw", "data/export", "data/email", "data/logs/events", "data/logs/served",
                     "data/feedback", "live_features", ".dvc/cache", "endcap:exposures", "endcap:served",
                     "endcap:dead", "endcap:events:", "session_id", "user_id"):  # fmt: skip
            assert any(part in one for one in held), (part, held)
        before = shown(shop, BOB)
        receipt = shop.home.parent / "receipt.json"
        done = erase.erase(ANN, "a letter", redis, receipt)
        assert traces(shop.home, redis, wanted) == [] and not done.held
        assert erase.check(receipt) == 0
        assert shown(shop, BOB) == before and len(before) > 3
        lives(shop, ANN, began)  # she comes again: nothing is kept of it
        time.sleep(0.5)
        assert traces(shop.home, redis, wanted) == []
        assert httpx.get(f"{shop.url}/readyz").status_code == 200
