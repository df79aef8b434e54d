"""`endcap interleave` over a running service: what is planted is found, and nothing where nothing differs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import yaml
from shops.stand import Stand

from serving.beside import trial
from serving.beside.trial import INTERLEAVE
from serving.release import state
from serving.release.state import EXPOSURES

pytest_plugins = ("shops.stand",)
WORKERS = 1
PAGE = Path(__file__).resolve().parents[3] / "docs" / "rollout.md"
HERO = {"surface": "homepage_hero", "limit": 8}


def visit(stand: Stand, session: str) -> dict[str, Any]:
    answer = httpx.post(f"{stand.url}/v1/recommend", json=HERO | {"session_id": session}, timeout=20)
    found: dict[str, Any] = answer.json()
    return found


def items(answer: dict[str, Any]) -> list[str]:
    return [slot["item_id"] for slot in answer["items"]]


def unhurried(stand: Stand) -> None:
    """On a machine that is busy with other tests, too, every list is made live and mixed."""
    params = yaml.safe_load((stand.home / "params.yaml").read_text())
    params["interleave"]["within_ms"] = 1e6
    params["cascade"] |= dict.fromkeys(("live_ms", "vector_ms", "shopper_ms", "shared_ms"), 1e6)
    (stand.home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def shop(stand: Stand, name: str, shoppers: int, dull: Iterable[str]) -> list[dict[str, Any]]:
    """Strangers who click on what is not `dull` four times as often; what they were shown."""
    rng, answers, clicks, known = np.random.default_rng(5), [], list[dict[str, Any]](), set(dull)
    for number in range(shoppers):
        session = f"{name}-{number}"
        answers.append(answer := visit(stand, session))
        for item in items(answer):
            if rng.random() < (0.1 if item in known else 0.4):
                told = {"event_id": f"{session}-{item}", "type": "click", "session_id": session}
                clicks.append(told | {"item_id": item, "request_id": answer["request_id"]})
    posted = httpx.post(f"{stand.url}/v1/events", json={"events": clicks}, timeout=20)
    assert posted.status_code == 202 and not posted.json()["rejected"]
    return answers


def status(stand: Stand) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stand.endcap("interleave", "status", "--json"))
    return found


def logged(stand: Stand) -> dict[str, dict[str, Any]]:
    entries = [orjson.loads(fields[b"exposure"]) for _, fields in stand.redis.xrange(EXPOSURES)]
    return {entry["request_id"]: entry for entry in entries}


def commands() -> list[list[str]]:
    section = PAGE.read_text().partition("## Interleaving")[2].partition("\n## ")[0]
    block = re.findall(r"```console\n(.*?)```", section, re.S)[0]
    return [shlex.split(line.removeprefix("$ endcap ")) for line in block.splitlines()]


def test_a_planted_difference_is_found_and_none_where_the_lists_are_the_same(stand: Stand) -> None:
    assert "none is registered" in stand.endcap("interleave", "start", status=1)
    champion = stand.release("one", "--direct", items=30)
    assert "nothing ever was" in stand.endcap("interleave", "status", status=1)
    unhurried(stand)
    stand.serve()
    dull = {item for number in range(5) for item in items(visit(stand, f"before-{number}"))[:-1]}
    challenger = stand.release("two", items=30, seed=1)
    start, look, look_json, stop = commands()
    told = stand.endcap(*start)
    assert f"{challenger.digest} shares the lists of 10% of the shoppers with {champion.digest}" in told
    assert "verdict: early" in stand.endcap(*look) and json.loads(stand.endcap(*look_json))["lists"] == 0
    stand.endcap("interleave", "start", "--share", "1", "--why", "everybody")
    stand.until(lambda: visit(stand, "waits")["arm"] == "interleaved")

    answers = shop(stand, "planted", 120, dull)
    assert {answer["arm"] for answer in answers} == {"interleaved"}
    assert {answer["bundle"] for answer in answers} == {champion.digest}
    assert all(len(set(items(answer))) == 8 for answer in answers)
    stand.until(lambda: status(stand)["lists"] >= 120 and sum(status(stand)["clicks"]) > 150)
    found = status(stand)
    assert found["verdict"] == "challenger" and 0 < found["lower"] < found["estimate"] < found["upper"]
    assert found["state"] == "running, 100% of the shoppers" and found["evidence"] > 20
    text = stand.endcap("interleave", "status")
    assert "verdict: challenger" in text and max(map(len, text.splitlines())) <= 100
    log = logged(stand)
    for answer in answers:
        told_of = log[answer["request_id"]]
        assert (told_of["arm"], told_of["version"], told_of["rival"]) == (
            "interleaved",
            None,
            challenger.digest,
        )
        assert (
            len(told_of["teams"]) == 8 and abs(told_of["teams"].count("A") - told_of["teams"].count("B")) <= 1
        )
    assert stand.redis.hgetall("endcap:health:interleaved") == {}

    assert f"{challenger.digest} is in no list any more" in stand.endcap(*stop)
    assert stand.endcap("interleave", "stop") == "nothing is interleaved\n"
    assert status(stand)["verdict"] == "challenger" and status(stand)["state"] == "ended"
    acts = [(entry["what"], entry["why"]) for entry in state.read_audit(stand.redis)]
    assert acts[0] == ("end_interleave", "decided") and ("start_interleave", "everybody") in acts
    stand.until(lambda: visit(stand, "after")["arm"] == "champion")

    same = stand.release("three", items=30)  # another release with the same lists
    stand.endcap("interleave", "start", "--share", "1")
    stand.until(lambda: visit(stand, "again")["arm"] == "interleaved")
    answers = shop(stand, "same", 60, dull)
    stand.until(lambda: status(stand)["lists"] >= 60 and status(stand)["nobodys"] > 20)
    found = status(stand)
    assert found["challenger"] == same.digest and found["clicks"] == [0, 0] and found["verdict"] == "early"
    assert set(logged(stand)[answers[0]["request_id"]]["teams"]) == {"-"}

    stand.endcap("rollout", "start", "--force", "--why", "seen enough")
    assert trial.read(stand.redis, INTERLEAVE) is None  # two arms are compared now
    stand.until(
        lambda: {visit(stand, f"c{number}")["arm"] for number in range(40)} == {"champion", "challenger"}
    )
    assert "on trial at 10 %" in stand.endcap("interleave", "start", status=1)
    stand.endcap("rollout", "stop")
