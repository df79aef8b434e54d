"""Who can get at a deployment: files, keys and ports, each opened once too wide."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from shops.deployment import NOWHERE, change, open_deployment, server

from feature_repo.clock import DAY_S
from feature_repo.files import secret, secrets_in
from feature_repo.online.connection import client
from feature_repo.persons.privacy import VARIABLE, key_file
from feature_repo.ports import CATALOGUE, PUBLISHABLE, SECRET, password_file, tokens_file
from monitoring.console.access import make_tokens
from pipelines.doctor import reach
from pipelines.doctor.finding import Finding
from serving.access.signatures import KEY, Signatures, Signing


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    return open_deployment(tmp_path, monkeypatch)


@pytest.fixture
def redis() -> Iterator[Redis]:
    with client(NOWHERE) as asked_nothing:
        yield asked_nothing


def told(look: Iterator[Finding], states: str = "must warn note") -> list[str]:
    found = [finding.line() for finding in look if finding.state in states]
    assert not [line for line in found if len(line) > 80 or (line[0] in "mw" and line[-1] == "…")]
    return found


def merchant(home: Path) -> None:
    """Its shoppers are people."""
    text = (home / "params.yaml").read_text()
    (home / "params.yaml").write_text(re.sub("(?m)^shop: simulated$", "shop: merch", text))


def test_keys_as_endcap_up_makes_them_are_right_and_none_is_ever_told(home: Path, redis: Redis) -> None:
    merchant(home)
    secret(key_file())
    secrets_in(tokens_file(), SECRET, CATALOGUE, f"{PUBLISHABLE}.de")
    make_tokens()
    found = [finding.line() for finding in reach.secrets(redis)]
    assert found == [
        "ok    secrets: 9 held, none of them guessable",
        "ok    person key: held; allowed: one of its own",
        "warn  API keys: the door is open. Next: access.keys.required: true",
    ]
    change(home, "access", keys={"required": True, "user_proof": False, "origins": {}})
    assert told(reach.secrets(redis)) == []
    tokens = [key_file().read_text(), *json.loads(tokens_file().read_text())["console"].values()]
    assert not [token for token in tokens for line in found if token in line]


@pytest.mark.parametrize("name", ["person.key", "tokens.json", "redis.password", "redis.conf"])
def test_a_file_that_others_may_read_is_told_with_the_command(name: str, home: Path, redis: Redis) -> None:
    merchant(home)
    secret(key_file())
    secrets_in(tokens_file(), SECRET)
    secret(password_file())
    (home / "run/merch/redis.conf").write_text("port 1\n")
    for file in (home / "run/merch").iterdir():
        file.chmod(0o600)
    (home / "run/merch" / name).chmod(0o644)
    line = f"must  run/merch/{name}: mode 644; allowed: 600. Next: chmod 600"
    assert told(reach.secrets(redis), "must") == [line]
    (home / "run/merch" / name).chmod(0o600)
    assert told(reach.secrets(redis), "must") == []


@pytest.mark.parametrize(
    "weak", ["short", "a" * 40, "the-new-secret-key", "a-key-for-pages-of-de", "change-me-change-me-1234"]
)
def test_a_key_that_can_be_guessed_is_told_by_its_name_alone(
    weak: str, home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant(home)
    secrets_in(tokens_file(), SECRET, given={SECRET: "kept"})
    tokens_file().write_text(json.dumps({"publishable": {"de": ["xUb7-qLr2_wPz9-vTn4", weak]}}))
    tokens_file().chmod(0o600)
    monkeypatch.setenv(VARIABLE, weak)
    monkeypatch.setenv("ENDCAP_CONSOLE_TOKEN", weak)
    found = told(reach.secrets(redis), "must")
    assert found == [
        "must  person key: guessable. Next: docs/privacy.md",
        "must  publishable.de.2: guessable. Next: 16 characters at random",
        "must  $ENDCAP_CONSOLE_TOKEN.1: guessable. Next: 16 characters at random",
    ]
    assert not [line for line in found if weak in line]


def test_a_shop_of_people_without_a_key_or_without_pseudonyms_is_told(home: Path, redis: Redis) -> None:
    assert "ok    person key: known to all: simulated shoppers are nobody" in told(reach.secrets(redis), "ok")
    merchant(home)
    line = "must  person key: none; allowed: one of its own. Next: put it back, or endcap up"
    assert line in told(reach.secrets(redis))
    assert not key_file().exists(), "to look makes no key"
    change(home, "privacy", pseudonyms=False)
    line = "warn  person key: unused: ids stay as they come. Next: privacy.pseudonyms: true"
    assert line in told(reach.secrets(redis))


def test_tokens_that_are_no_json_are_told(home: Path, redis: Redis) -> None:
    tokens_file().parent.mkdir(parents=True)
    tokens_file().write_text("{")
    tokens_file().chmod(0o600)
    line = "must  tokens.json: no JSON object. Next: remove it; endcap up makes another"
    assert told(reach.secrets(redis)) == [line]


def test_a_day_without_a_key_for_request_ids_is_told(redis_url: str) -> None:
    with client(redis_url) as redis:
        assert told(reach.signing(redis)) == ["must  signing: no key of today. Next: endcap up service"]
        seconds, _ = redis.time()  # type: ignore[misc]
        Signatures(Signing(3600, 7200)).follow(redis, seconds * 1_000_000)
        assert told(reach.signing(redis)) == []
        redis.set(f"{KEY}{seconds // DAY_S}", "default")
        assert len(told(reach.signing(redis))) == 1


def test_a_redis_without_a_password_is_told_more_loudly_from_afar(
    home: Path, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    open_door = "redis password: none is asked for. Next: set requirepass, and REDIS_URL"
    assert told(reach.way(redis)) == [f"warn  {open_door}"]
    monkeypatch.setenv("REDIS_URL", redis_url.replace("127.0.0.1", "0.0.0.0"))  # as an address of elsewhere
    assert told(reach.way(redis)) == [
        f"must  {open_door}",
        "warn  way to redis: redis; allowed: rediss. Next: TLS, or a private network",
    ]


def test_ports_that_other_machines_reach_are_told(
    home: Path, tmp_path: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        server(tmp_path, "--bind", "0.0.0.0", "--save", "") as url,
        socket.create_server(("0.0.0.0", 0)) as console,
        socket.create_server(("127.0.0.1", 0)) as service,
    ):
        ports = [str(one.getsockname()[1]) for one in (console, service)]
        monkeypatch.setenv("REDIS_URL", url)
        monkeypatch.setenv("ENDCAP_CONSOLE_PORT", ports[0])
        monkeypatch.setenv("ENDCAP_SERVICE_PORT", ports[1])
        number = url.rsplit(":", 1)[1].removesuffix("/0")
        found = [finding.line() for finding in reach.ports(redis)]
        limit = "allowed: 127.0.0.1. Next:"
        assert found[:3] == [
            f"must  console's port: 0.0.0.0:{ports[0]}; {limit} drop --host",
            f"must  redis's port: 0.0.0.0:{number}; {limit} bind 127.0.0.1",
            f"ok    service's port: {ports[1]}, this machine alone",
        ]
        assert found[3].startswith("note  storefront's port: nobody listens on ")
        monkeypatch.setenv("ENDCAP_SERVICE_PORT", ports[0])
        line = f"warn  service's port: 0.0.0.0:{ports[0]}; {limit} a proxy in front"
        assert line in told(reach.ports(redis))
