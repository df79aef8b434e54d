"""`endcap doctor` without DATA: whatever is away or garbled is a finding, with the next step, in seconds."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from redis import Redis
from shops.black_hole import BlackHole
from shops.deployment import doctor, findings, open_deployment, server

from feature_repo.params import root
from pipelines import cli
from pipelines.doctor import deployment, footing, reach, redis_server
from pipelines.doctor.finding import WIDTH, Finding
from pipelines.local.stack import DURABLE
from serving.release import state

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return open_deployment(tmp_path, monkeypatch)


def test_where_nothing_runs_each_thing_says_how_it_begins(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = doctor(capsys)
    assert told[0] == "must  redis: none at redis://127.0.0.1:1/0. Next: start it (REDIS_URL)"
    assert any(line.startswith("must  service: none at http://127.0.0.1:") for line in told)
    assert told[-1] == f"endcap: 2 of {len(told) - 1} findings must be mended; each line says how"
    monkeypatch.delenv("REDIS_URL")
    assert doctor(capsys)[0].endswith("/0. Next: endcap up redis")
    assert not list(root().rglob("run/*/*.key")), "to look changes nothing"


def test_a_redis_and_a_service_that_swallow_every_byte_cost_seconds(
    home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hole = BlackHole(int(redis_url.rsplit(":", 1)[1].removesuffix("/0")))
    hole.swallow.set()
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{hole.port}/0")
    monkeypatch.setenv("ENDCAP_SERVICE_PORT", str(hole.port))
    began = time.monotonic()
    told = doctor(capsys)
    hole.close()
    assert told[0].startswith(f"must  redis: none at redis://127.0.0.1:{hole.port}/0. Next: ")
    assert time.monotonic() - began < 3 * deployment.ANSWER_S + 10, "2 s each; the rest is a busy machine"


def test_a_garbled_state_is_a_finding_and_the_others_are_made(
    home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as redis:
        redis.hset(state.ROLLOUT, "version", "none of ours")
        found = findings(capsys)
        assert found["canary"]["state"] == "must" and "cannot be read" in found["canary"]["value"]
        assert found["stream.partitions"]["state"] == "ok"
        redis.delete(state.ROLLOUT)
        redis.set(state.ROLLOUT, "of another program")
        assert "WRONGTYPE" in findings(capsys)["canary"]["value"]


def test_warnings_alone_end_with_0_and_are_counted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = ((redis_server.persistence, True), (reach.ports, False))
    monkeypatch.setattr(deployment, "LOOKS", looks)
    with server(tmp_path, *DURABLE, "--appendfsync", "everysec") as url:
        monkeypatch.setenv("REDIS_URL", url)
        assert doctor(capsys, code=0)[-1] == "5 are right, 1 can wait, nothing must be mended"
        assert findings(capsys, code=0)["appendfsync"]["state"] == "warn"


def test_a_line_too_long_loses_of_its_value_and_keeps_the_next_step() -> None:
    long = Finding("thing", "must", "a value\n" + "x" * 100, "less", "endcap up")
    line = long.line()
    assert len(line) == WIDTH
    assert line.startswith("must  thing: a value?xxx") and line.endswith("x…; allowed: less. Next: endcap up")


def test_options_of_an_export_are_refused_without_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--adapter", "ga4"]) == 2
    assert "--adapter, --mapping and --picture go with DATA" in re.sub(
        r"[\s│]+", " ", capsys.readouterr().err
    )
    assert cli.run(["doctor", "--help"]) == 0
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "`must` is exit code 1, `warn` and `note` alone are 0" in told


def test_every_look_is_in_the_report_and_every_thing_in_the_docs(
    home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = {look for look, _ in deployment.LOOKS}
    looks = {
        look
        for module in (redis_server, footing, reach)
        for name, look in vars(module).items()
        if callable(look) and getattr(look, "__module__", "") == module.__name__ and name[0] != "_"
    }
    assert looks - listed == {redis_server.away, redis_server.DoctorParams}
    monkeypatch.setenv("REDIS_URL", redis_url)
    page = (ROOT / "docs/operations.md").read_text().partition("## A deployment looked at")[2]
    rows = [line for line in page.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert set(findings(capsys)) - documented == set()
