"""`endcap shadow` and the canary that asks for it, over a running service."""

from __future__ import annotations

import json
import threading
import time

import httpx
import yaml
from shops.stand import HERO, Stand

from feature_repo.places import SHADOW
from serving.beside import trial
from serving.release import state

pytest_plugins = ("shops.stand",)
WORKERS = 1


def require(stand: Stand, pairs: int) -> None:
    params = yaml.safe_load((stand.home / "params.yaml").read_text())
    params["shadow"] |= {"required": True, "min_pairs": pairs}
    (stand.home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def shoppers(stand: Stand, gone: threading.Event) -> None:
    number = 0
    while not gone.is_set():
        number += 1
        httpx.post(f"{stand.url}/v1/recommend", json=HERO | {"session_id": f"v{number}"}, timeout=20)
        time.sleep(0.02)


def test_a_canary_begins_after_its_shadow_or_by_force_with_a_reason(stand: Stand) -> None:
    require(stand, pairs=20)
    stand.release("one", "--direct")
    assert "none is registered" in stand.endcap("shadow", "start", status=1)
    stand.serve()
    waiting = stand.release("two")
    refused = stand.endcap("rollout", "start", status=1)
    assert f"shadow: {waiting.digest}: it was computed beside 0 answers, at least 20 are a report" in refused
    assert "--force: needs a reason" in stand.endcap("rollout", "start", "--force", status=1)
    gone = threading.Event()
    visits = threading.Thread(target=shoppers, args=(stand, gone))
    visits.start()
    try:
        told = stand.endcap("shadow", "start", "--share", "1", "--why", "a look before")
        assert f"{waiting.digest} is computed beside 100% of the answers" in told
        stand.until(lambda: "nothing speaks against a canary" in report(stand))
        shown = stand.endcap("shadow", "report")
    finally:
        gone.set()
        visits.join()
    assert max(map(len, shown.splitlines())) <= 80
    told = json.loads(stand.endcap("shadow", "report", "--json"))
    written = json.loads((stand.home / SHADOW).read_bytes())
    assert written == told
    assert written["digest"] == waiting.digest and written["objection"] == ""
    assert (stand.home / SHADOW).with_suffix(".png").stat().st_size > 5_000
    assert "10 %" in stand.endcap("rollout", "start")
    assert trial.read(stand.redis) is None  # shoppers see it now
    entries = {entry["what"]: entry for entry in state.read_audit(stand.redis)}
    assert entries["start_shadow"]["why"] == "a look before"
    assert entries["start_canary"]["numbers"]["shadow"]["pairs"] >= 20
    assert "on trial at 10 %" in stand.endcap("shadow", "start", status=1)
    stand.endcap("rollout", "stop")
    assert stand.endcap("shadow", "stop") == "nothing is in the shadow\n"


def report(stand: Stand) -> str:
    for status in (1, 0):
        try:
            return stand.endcap("shadow", "report", status=status)
        except AssertionError:
            continue
    raise AssertionError


def test_a_forced_canary_has_its_reason_and_what_spoke_against_it_in_the_audit(stand: Stand) -> None:
    stand.release("three")
    stand.endcap("rollout", "start", "--force", "--why", "the fair begins at noon")
    entry = state.read_audit(stand.redis, 1)[0]
    assert entry["why"] == "the fair begins at noon" and "beside 0 answers" in entry["numbers"]["forced"]
    stand.endcap("rollout", "stop")
