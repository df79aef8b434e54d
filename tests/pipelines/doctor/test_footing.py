"""How a deployment stands: releases, ages, holdout, canary, partitions, disks, the edge; each broken once."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from redis import Redis
from shops.canary import NEW, OLD, start_canary
from shops.deployment import NOWHERE, change, findings, open_deployment, server
from shops.service import Service
from shops.stream import wait_until

from feature_repo.assemble.schema import schema_hash
from feature_repo.eventlog.keys import APPLIED, GROUPS, applied_field, stream_key
from pipelines.doctor import footing
from pipelines.doctor.finding import Finding
from pipelines.local.condition import Condition, ages
from serving.release import looks, state, workers
from serving.release.workers import Report

pytest_plugins = ("shops.service",)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return open_deployment(tmp_path, monkeypatch)


@pytest.fixture
def redis(home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as client:
        yield client


def lines(look: Callable[[Redis], Iterable[Finding]], redis: Redis) -> list[str]:
    found = [finding.line() for finding in look(redis)]
    assert not [line for line in found if len(line) > 80 or (line[0] in "mw" and line[-1] == "…")]
    return found


def write_manifest(home: Path, release: state.Release, schema: str) -> None:
    (folder := home / release.path).mkdir(parents=True)
    told = {"schema": schema, "revision": {"git": "c0ffee" * 7}}
    (folder / "manifest.json").write_bytes(orjson.dumps(told))


def test_a_release_that_this_code_cannot_read_and_one_that_is_gone_are_told(home: Path, redis: Redis) -> None:
    start_canary(redis)
    write_manifest(home, OLD, "another")
    assert lines(footing.releases, redis) == [
        "must  workers: no worker reports: the service is down,…. Next: endcap up service",
        "must  champion: old, of another schema. Next: endcap retrain",
        "must  challenger: data/bundles/new is gone. Next: put its folder back",
    ]
    shutil.rmtree(home / OLD.path)
    for release in (OLD, NEW):
        write_manifest(home, release, schema_hash())
    assert lines(footing.releases, redis)[1:] == [
        "ok    champion: old, made by c0ffeec0ffee",
        "ok    challenger: new, made by c0ffeec0ffee",
    ]


def test_a_worker_that_serves_something_else_is_told_by_name(home: Path, redis: Redis) -> None:
    start_canary(redis)
    right = Report("here:1", 2, "old", "new", 1_700_000_000_000_000)
    workers.write(redis, right, 60)
    assert lines(footing.releases, redis)[0].startswith(
        "ok    workers: 1 of 1 serve old, new to 10 % (version"
    )
    workers.write(redis, replace(right, worker="there:2", challenger="", refused={"new": "no room"}), 60)
    told = lines(footing.releases, redis)
    assert told[0].startswith("ok    workers: 1 of 2 serve old")
    assert told[1].startswith("must  workers: there:2 serves old (version 2);")
    assert told[1].endswith(". Next: endcap rollout status")


def test_what_is_too_old_or_missing_is_told_with_its_limit_and_the_rest_in_one_line() -> None:
    things = [
        Condition("items", "fresh", 3.0, 60.0),
        Condition("rules", "fresh", 30.0, 60.0),
        Condition("vigil", "too old", 61.2, 60.0),
        Condition("consumers", "too old", 400.0, 300.0),
        Condition("features", "missing", next="`endcap restore`; in a new shop `endcap materialize`"),
    ]
    assert [finding.line() for finding in footing._aged("service's ages", things)] == [
        "must  vigil: 61 s old; allowed: 60 s. Next: /readyz tells why",
        "must  consumers: 400 s old; allowed: 300 s. Next: endcap up stream",
        "must  features: missing. Next: endcap restore",
        "ok    service's ages: 2 fresh, nearest its limit rules: 30.0 s; allowed: 60 s",
    ]


def test_a_real_service_is_told_by_its_own_ages_and_its_jobs_that_do_not_live(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(service.home))
    monkeypatch.setenv("REDIS_URL", service.redis_url)
    monkeypatch.setenv("ENDCAP_SERVICE_PORT", service.url.rsplit(":", 1)[1])
    wait_until(lambda: ages(f"{service.url}/metrics"))
    found = findings(capsys)
    assert found["service's ages"]["state"] == "ok" and "service" not in found
    assert re.match(r"\d\d fresh, nearest its limit \w+: \d+\.\d s", found["service's ages"]["value"])
    assert found["workers"]["value"].startswith("1 of 1 serve ")
    assert {found[name]["state"] for name in ("champion", "signing")} == {"ok"}
    assert [found[job]["next"] for job in ("stream", "guard")] == ["endcap up stream", "endcap up guard"]
    assert found["holdout"] == {
        "thing": "holdout",
        "state": "warn",
        "value": "0.0%",
        "allowed": "more than 0",
        "next": "set router.holdout_share",
    }
    assert found["service's port"]["value"].endswith(", this machine alone")


def test_a_canary_without_a_living_guard_or_without_a_secret_salt_is_told(home: Path, redis: Redis) -> None:
    assert lines(footing.canary, redis) == ["ok    canary: none is on"]
    start_canary(redis)
    assert lines(footing.canary, redis) == [
        "must  canary: 10 %, no guard; allowed: 60 s. Next: endcap up guard",
        "ok    salt: 32 characters; allowed: 16 at random",
    ]
    looks.beat(redis)
    assert lines(footing.canary, redis)[0] == "ok    canary: 10 %, guard looked 0 s ago; allowed: 60 s"
    redis.hincrby(looks.GUARD, "at_us", -100_000_000)
    (told, _) = lines(footing.canary, redis)
    assert re.fullmatch(
        r"must  canary: 10 %, guard looked 10\d s ago; allowed: 60 s. Next: endcap up guard", told
    )
    redis.hset(state.ROLLOUT, "salt", '""')
    assert lines(footing.canary, redis)[1].startswith(
        "must  salt: 0 characters; allowed: 16 at random. Next: endcap rollout stop"
    )


def test_entries_of_partitions_that_nobody_reads_any_more_are_told_until_they_are_applied(
    home: Path, redis: Redis
) -> None:
    assert lines(footing.partitions, redis) == ["ok    stream.partitions: 4, the log has 0"]
    redis.xadd(stream_key(3), {"event": "{}"}, id="1000-1")
    redis.xadd(stream_key(6), {"event": "{}"}, id="1000-1")
    wrong = "must  stream.partitions: 4, more hold entries; allowed: 7 on. Next: raise it"
    assert lines(footing.partitions, redis) == [wrong]
    redis.hset(APPLIED, applied_field(GROUPS[0], 6), "1000-1")
    assert lines(footing.partitions, redis) == [wrong], "the other group still has it to apply"
    redis.hset(APPLIED, applied_field(GROUPS[1], 6), "1000-1")
    assert lines(footing.partitions, redis) == ["ok    stream.partitions: 4, the log has 7"]


def test_a_kafka_that_does_not_answer_is_told(
    home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_EVENT_LOG", "kafka://127.0.0.1:1/events")
    (told,) = lines(footing.partitions, redis)
    assert told.startswith("must  stream.partitions: 4: ")
    assert told.endswith(". Next: start it, or add partitions")


def test_disks_are_held_to_the_limits_that_alarms_and_the_event_door_have(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(tmp_path, "--save", "") as url, Redis.from_url(url) as redis:
        monkeypatch.delenv("REDIS_URL")  # the embedded one is where its port is
        monkeypatch.setenv("ENDCAP_REDIS_PORT", url.rsplit(":", 1)[1].removesuffix("/0"))
        assert [line[:19] for line in lines(footing.disks, redis)] == [
            "ok    disk of data:",
            "ok    disk of logs:",
            "ok    disk of redis",
        ]
        change(home, "alarms", min_free_mib=9_999_999)
        change(home, "serving", min_free_mib=9_999_998)
        data, logs, kept = lines(footing.disks, redis)
        assert data.endswith("; allowed: 9,999,999 MiB on. Next: endcap prune")
        assert logs.endswith("; allowed: 9,999,999 MiB on. Next: endcap retain")
        assert kept.endswith("; allowed: 9,999,998 MiB on. Next: make room")
        monkeypatch.setenv("REDIS_URL", NOWHERE)
        assert lines(footing.disks, redis)[0].startswith("note  disk of redis: another server's, not seen")


def test_the_edge_is_told_as_its_configuration_and_the_docs_have_it(home: Path, redis: Redis) -> None:
    assert lines(footing.edge, redis)[0].startswith("note  edge: no deploy/edge/endcap.conf here")
    shutil.copytree(ROOT / "deploy/edge", home / "deploy/edge")
    (told,) = lines(footing.edge, redis)
    assert told == "ok    edge: shared lists are up to 180 s old, 3,690 s while the service fails"
    page = (ROOT / "docs/deploy.md").read_text()
    assert "| 180 s (" in page and "| 3,690 s (" in page
    change(home, "serving", edge_ttl_s=30)
    assert "up to 120 s old, 3,630 s while" in lines(footing.edge, redis)[0]


def test_a_holdout_is_told_by_its_share(home: Path, redis: Redis) -> None:
    assert lines(footing.holdout, redis) == ["ok    holdout: 2.0%; allowed: more than 0"]
    change(home, "router", holdout_share=0.0)
    told = "warn  holdout: 0.0%; allowed: more than 0. Next: set router.holdout_share"
    assert lines(footing.holdout, redis) == [told]
