"""An experiment over the running service: lists by variant, also after a restart, results from the logs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason
from shops.service import Service, running_service
from shops.storefront import SECRET

from serving.flags import flag_versions
from serving.flags.flag_document import parse
from serving.release.state import EXPOSURES, Act

PIN = {"pin": {"items": ["item-7", "item-8"], "slots": [0, 1]}}
DOCUMENT = {
    "rule_sets": {"sevens": {"rules": [{"id": "seven-first", "do": PIN}]}},
    "flags": [
        {
            "key": "lists",
            "status": "running",
            "variants": [
                {"name": "control"},
                {"name": "sevens", "do": {"rule_set": "sevens"}},
                {"name": "plain", "do": {"order": "bestsellers"}},
            ],
        },
        {
            "key": "layout",
            "status": "running",
            "audience": {"surface": ["homepage_hero"]},
            "variants": [
                {"name": "control", "do": {"value": "row"}},
                {"name": "grid", "do": {"value": "grid"}},
            ],
        },
    ],
}
SHOPPERS = [f"shopper-{at}" for at in range(60)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("flags"), {"workers": 2}) as found:
        yield found


def asked(service: Service, shopper: str, surface: str = "homepage_hero") -> dict[str, Any]:
    with service.client() as client:
        body = {"surface": surface, "user_id": shopper}
        told: dict[str, Any] = client.post("/v1/recommend", json=body, headers=SECRET).json()
        return told


def variants(answer: dict[str, Any]) -> dict[str, str]:
    return {one["flag_key"]: one["variant"] for one in answer.get("flags", ())}


def all_variants(service: Service) -> dict[str, dict[str, str]]:
    return {shopper: variants(asked(service, shopper)) for shopper in SHOPPERS}


def command(service: Service, *words: str, cwd: Path | None = None) -> str:
    env = {**os.environ, "REDIS_URL": service.redis_url, "ENDCAP_HOME": str(service.home)}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "experiment", *words],
        env=env | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_shoppers_see_the_lists_of_their_variants_from_the_publishing_of_them_to_their_end(
    service: Service,
) -> None:
    before = asked(service, SHOPPERS[0])
    assert "flags" not in before
    file = service.home / "flags.json"
    file.write_bytes(orjson.dumps(DOCUMENT))
    assert "version 1: 2 flags" in command(service, "publish", str(file), "--why", "try it")
    time.sleep(1.0)
    answers = {shopper: asked(service, shopper) for shopper in SHOPPERS}
    assert {one["reason"] for answer in answers.values() for one in answer["flags"]} == {"SPLIT"}
    drawn = {shopper: variants(answer) for shopper, answer in answers.items()}
    assert {one["lists"] for one in drawn.values()} == {"control", "sevens", "plain"}
    for shopper, answer in answers.items():
        head = [slot["item_id"] for slot in answer["items"][:2]]
        assert (head == ["item-7", "item-8"]) == (drawn[shopper]["lists"] == "sevens")
        plain = drawn[shopper]["lists"] == "plain"
        assert answer["served_from"] == ("precomputed" if plain else "live") and len(answer["items"]) == 12
        layout = next(one for one in answer["flags"] if one["flag_key"] == "layout")
        assert layout["value"] == {"control": "row", "grid": "grid"}[layout["variant"]]
    assert "layout" not in variants(asked(service, SHOPPERS[0], "cart_upsell"))

    time.sleep(0.5)
    with service.redis() as redis:
        logged = [orjson.loads(fields[b"exposure"]) for _, fields in redis.xrange(EXPOSURES)]
    by_request = {one["request_id"]: one for one in logged}
    for shopper, answer in answers.items():
        told = by_request[answer["request_id"]]
        assert (told["variants"], told["flags"]) == (drawn[shopper], 1)
    assert "variants" not in by_request[before["request_id"]]

    for worker in service.workers():
        worker.kill()
    service.wait_until_ready()
    deadline = time.monotonic() + 30
    while (again := all_variants(service)) != drawn and time.monotonic() < deadline:
        time.sleep(0.2)  # a worker that has just come up
    assert again == drawn

    found = json.loads(command(service, "results", "lists", "--json"))
    counts = {name: sum(one["lists"] == name for one in drawn.values()) for name in found["visitors"]}
    assert found["visitors"] == counts and found["picture"].startswith("<svg")
    page = service.home / "lists.html"
    text = command(service, "results", "lists", "--report", str(page))
    assert "visitors: control" in text and max(map(len, text.splitlines()[:-1])) <= 80
    assert "<svg" in page.read_text()
    assert "ctr" in command(service, "status", "lists")
    assert "visitors" in command(service, "results", "holdout")

    command(service, "stop", "lists", "--why", "enough")
    time.sleep(1.0)
    assert all("lists" not in one for one in all_variants(service).values())
    assert "layout" in command(service, "status")


def test_a_change_is_in_every_worker_within_a_second(service: Service) -> None:
    with service.redis() as redis:
        on = {"key": "on", "status": "running", "variants": [{"name": "a"}, {"name": "b"}]}
        act, seen = Act("tester", "test", time.time_ns() // 1000), flag_versions.read(redis)
        flag_versions.publish(redis, parse(orjson.dumps({"flags": [on]})), act, seen)
    time.sleep(1.0)
    assert all(set(one) == {"on"} for one in all_variants(service).values())


def test_the_commands_of_the_page_do_what_it_says_and_its_document_is_one(
    service: Service, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "flags.md").read_text()
    document, commands = (re.findall(rf"```{kind}\n(.*?)```", page, re.S)[0] for kind in ("json", "console"))
    (tmp_path / "flags.json").write_text(document)
    lines = [shlex.split(line.removeprefix("$ endcap experiment ")) for line in commands.splitlines()]
    told = {" ".join(words[:2]): command(service, *words, cwd=tmp_path) for words in lines}
    assert len(lines) == 9
    assert "3 flags" in told["publish flags.json"] and "2.4 times" in told["plan --metric"]
    assert "100 %" in told["start calm"] and "visitors" in told["results holdout"]
    assert "<svg" in (tmp_path / "calm.html").read_text()
    shown = json.loads(told["show"])
    assert [one["key"] for one in shown["flags"]] == ["own-brand", "calm", "layout"]
    assert "salt" not in told["show"]
    assert parse(told["show"].encode()).flag("calm").shares == {"control": 2 / 3, "varied": 1 / 3}


def test_the_sdk_of_openfeature_evaluates_as_the_lists_do(service: Service) -> None:
    values = [{"name": "a", "do": {"value": "row"}}, {"name": "b", "do": {"value": "grid"}}]
    layout = {"key": "layout", "status": "running", "audience": {"surface": ["pdp_fbt"]}, "variants": values}
    off = {"key": "off", "variants": [{"name": "a", "do": {"value": 1}}, {"name": "b", "do": {"value": 2}}]}
    with service.redis() as redis:
        act, seen = Act("tester", "test", time.time_ns() // 1000), flag_versions.read(redis)
        flag_versions.publish(redis, parse(orjson.dumps({"flags": [layout, off]})), act, seen)
    time.sleep(1.0)
    api.set_provider(OFREPProvider(f"{service.url}/compat"))
    client = api.get_client()
    for shopper in SHOPPERS[:20]:
        there = EvaluationContext(shopper, {"surface": "pdp_fbt"})
        found = client.get_string_details("layout", "none", there)
        listed = asked(service, shopper, "pdp_fbt")["flags"]
        assert listed == [
            {"flag_key": "layout", "variant": found.variant, "reason": "SPLIT", "value": found.value}
        ]
        assert found.reason == Reason.SPLIT and found.value == {"a": "row", "b": "grid"}[found.variant or ""]
    elsewhere = client.get_string_details(
        "layout", "none", EvaluationContext("u", {"surface": "cart_upsell"})
    )
    assert (elsewhere.value, elsewhere.variant, elsewhere.reason) == ("row", "a", Reason.DEFAULT)
    stopped = client.get_integer_details("off", 7, EvaluationContext("u"))
    assert (stopped.value, stopped.reason) == (1, Reason.DISABLED)
    unknown = client.get_string_details("nothing", "mine", EvaluationContext("u"))
    assert (unknown.value, unknown.error_code) == ("mine", ErrorCode.FLAG_NOT_FOUND)
    assert "layout, off" in (unknown.error_message or "")
    nobody = client.get_string_details("layout", "mine", EvaluationContext(attributes={"surface": "pdp_fbt"}))
    assert (nobody.value, nobody.error_code) == ("mine", ErrorCode.TARGETING_KEY_MISSING)
    with service.client() as http:
        body = {"context": {"targetingKey": "u", "surface": "pdp_fbt"}}
        told = http.post("/compat/ofrep/v1/evaluate/flags", json=body).json()["flags"]
    assert [one["key"] for one in told] == ["layout", "off"]
