"""One alarm per thing until it is over, then one word that it is; whatever the receiver does meanwhile."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY
from redis import Redis

from feature_repo.errors import ParamsError
from feature_repo.params import load
from feature_repo.ports import tokens_file
from monitoring.alerting import webhook
from monitoring.alerting.lookout import Lookout, age_s, alarms, silent_s
from monitoring.alerting.troubles import AlarmParams, Trouble
from monitoring.alerting.webhook import Webhook
from serving.release.looks import publish_alarms

KEY = b"0123456789abcdef01234567"
PARAMS = replace(
    load("alarms", AlarmParams), every_s=10.0, over_s=60.0, first_retry_s=5.0, longest_retry_s=40.0, tries=6
)
DISK = Trouble("disk", "disk: 500 MiB are left, limit 1,024 MiB", "endcap prune --dry-run", {"free_mib": 500})
LAG = Trouble("consumers", "consumers: 75 s", "endcap up stream")


@dataclass
class Receiver:
    """A real HTTP server: `mood` is how it answers; `taken` the messages that it took, each proven."""

    url: str = ""
    mood: str = "takes"
    taken: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)  # of all that was sent, taken or not
    woken: threading.Event = field(default_factory=threading.Event)

    def told(self) -> list[tuple[str, str]]:
        return [(one["type"], one["data"]["thing"]) for one in self.taken]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            named = {name: self.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")}
            found.ids.append(named["id"])
            if found.mood == "hangs":
                found.woken.wait(5)
                return
            if found.mood == "takes":  # before it answers: who asked looks at once
                signed = f"{named['id']}.{named['timestamp']}.".encode() + body
                mac = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
                assert named["signature"] == f"v1,{mac}"
                found.taken.append(orjson.loads(body))
            if found.mood == "moved":
                self.send_response(302)
                self.send_header("location", found.url)
            else:
                self.send_response(500 if found.mood == "fails" else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/hook"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        found.woken.set()
        server.shutdown()


@dataclass
class Shop:
    """What is wrong now; each look sees it. An exception is raised."""

    wrong: list[Trouble] = field(default_factory=list)
    away: bool = False

    def look(self) -> list[Trouble]:
        if self.away:
            raise OSError("the service does not answer")
        return self.wrong


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def lookout(redis: Redis, receiver: Receiver, shop: Shop) -> Lookout:
    return opened(redis, receiver, shop)


def opened(
    redis: Redis, receiver: Receiver, shop: Shop, params: AlarmParams = PARAMS, timeout_s: float = 10.0
) -> Lookout:
    hook = Webhook(receiver.url, KEY, timeout_s)
    return Lookout(redis, {"any": shop.look}, params, "simulated", hook.post)


def test_a_trouble_is_told_once_and_once_more_when_it_is_over(
    redis: Redis, lookout: Lookout, receiver: Receiver, shop: Shop
) -> None:
    shop.wrong = [DISK]
    for now in range(0, 300, 10):
        lookout.look(now)
    assert receiver.told() == [("alarm.raised", "disk")]
    data = receiver.taken[0]["data"]
    assert data["told"] == DISK.told and data["numbers"] == {"free_mib": 500}
    assert (data["next"], data["shop"]) == ("endcap prune --dry-run", "simulated")
    shop.wrong = []
    for now in range(300, 500, 10):
        lookout.look(now)
    assert receiver.told() == [("alarm.raised", "disk"), ("alarm.over", "disk")]
    assert receiver.taken[1]["data"]["until"] == "1970-01-01T00:05:00+00:00"
    assert len(set(receiver.ids)) == 2 and alarms(redis) == []
    shop.wrong = [DISK]
    lookout.look(500)
    assert receiver.told()[2:] == [("alarm.raised", "disk")]


def test_what_flickers_or_cannot_be_looked_at_is_neither_over_nor_new(
    lookout: Lookout, receiver: Receiver, shop: Shop
) -> None:
    for now in range(0, 600, 10):
        shop.wrong = [DISK] if now % 50 == 0 else []
        lookout.look(now)
    shop.wrong = [DISK]
    lookout.look(600)
    shop.away = True
    for now in range(610, 1200, 10):
        lookout.look(now)
    assert receiver.told() == [("alarm.raised", "disk")]


@pytest.mark.parametrize("mood", ["fails", "hangs", "moved"])
def test_a_receiver_that_does_not_take_it_is_asked_again_later_and_later_with_the_same_id(
    redis: Redis, receiver: Receiver, shop: Shop, mood: str
) -> None:
    receiver.mood, shop.wrong = mood, [DISK]
    lookout, sent = opened(redis, receiver, shop, timeout_s=0.2), []
    for now in range(60):
        before = len(receiver.ids)
        lookout.look(now)
        sent += [now] if len(receiver.ids) > before else []
    assert sent == [0, 5, 15, 35]  # pauses of 5, 10, 20 and 40 seconds
    assert len(set(receiver.ids)) == 1
    (alarm,) = alarms(redis)
    assert not alarm.heard and alarm.failure in ("it answered 500", "it answered 302", "ReadTimeout")
    receiver.mood = "takes"
    receiver.woken.set()
    redis.delete("endcap:alarms:turn")  # another takes over, who waits longer for an answer
    lookout = opened(redis, receiver, shop)
    for now in range(60, 90):
        lookout.look(now)
    assert receiver.told() == [("alarm.raised", "disk")] and alarms(redis)[0].heard
    assert len(set(receiver.ids)) == 1


def test_a_receiver_that_never_comes_back_is_given_up_and_the_console_goes_on_telling(
    redis: Redis, lookout: Lookout, receiver: Receiver, shop: Shop
) -> None:
    receiver.mood, shop.wrong = "fails", [DISK]
    for now in range(0, 10_000, 10):
        lookout.look(now)
    assert len(receiver.ids) == PARAMS.tries and [one.thing for one in alarms(redis)] == ["disk"]
    shop.wrong = []
    for now in range(10_000, 20_000, 10):
        lookout.look(now)
    assert len(receiver.ids) == 2 * PARAMS.tries and alarms(redis) == []


def test_a_restart_repeats_nothing_and_of_two_lookouts_one_tells(
    redis: Redis, lookout: Lookout, receiver: Receiver, shop: Shop
) -> None:
    shop.wrong = [DISK, LAG]
    assert age_s(redis, PARAMS) == silent_s(PARAMS)
    other = opened(redis, receiver, shop)
    for now in range(0, 100, 10):
        lookout.look(now)
        other.look(now)
    assert sorted(receiver.told()) == [("alarm.raised", "consumers"), ("alarm.raised", "disk")]
    assert age_s(redis, PARAMS) < 5
    redis.delete("endcap:alarms:turn")  # the one whose turn it was died
    for now in range(100, 200, 10):
        other.look(now)
    assert len(receiver.taken) == 2


def test_a_clock_that_is_set_back_delays_no_message_beyond_the_longest_pause(
    lookout: Lookout, receiver: Receiver, shop: Shop
) -> None:
    receiver.mood, shop.wrong = "fails", [DISK]
    lookout.look(1_000_000)
    receiver.mood = "takes"
    lookout.look(10)
    assert receiver.told() == [("alarm.raised", "disk")]


def test_without_a_webhook_the_console_tells_it_and_forgets_it_when_it_is_over(
    redis: Redis, shop: Shop
) -> None:
    lookout = Lookout(redis, {"any": shop.look}, PARAMS, "simulated", None)
    shop.wrong = [DISK]
    lookout.look(0)
    assert [one.told for one in alarms(redis)] == [DISK.told]
    shop.wrong = []
    for now in range(10, 200, 10):
        lookout.look(now)
    assert alarms(redis) == []


def test_the_loop_outlives_a_look_that_raises(redis: Redis, receiver: Receiver, shop: Shop) -> None:
    stopping, calls = threading.Event(), []

    def look() -> list[Trouble]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return [DISK]

    hook = Webhook(receiver.url, KEY, timeout_s=10.0)
    out = Lookout(redis, {"any": look}, replace(PARAMS, every_s=0.02), "simulated", hook.post)
    thread = threading.Thread(target=out.run, args=(stopping, time.time))
    thread.start()
    deadline = time.monotonic() + 5
    while not receiver.taken and time.monotonic() < deadline:
        time.sleep(0.01)
    stopping.set()
    thread.join(5)
    assert receiver.told() == [("alarm.raised", "disk")] and not thread.is_alive()


def test_address_and_secret_come_from_the_environment_else_from_the_shops_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    (tmp_path / "params.yaml").write_bytes(Path("params.yaml").read_bytes())
    assert webhook.configured() is None
    held = orjson.loads(tokens_file().read_bytes())
    assert len(webhook.key_of(held["alarms"]["secret"])) == 24 and tokens_file().stat().st_mode & 0o077 == 0
    held["alarms"]["url"] = "https://example.org/hook"
    tokens_file().write_bytes(orjson.dumps(held))
    found = webhook.configured()
    assert found and found.url == "https://example.org/hook" and "example" not in repr(found)
    secret = "whsec_" + base64.b64encode(KEY).decode()
    monkeypatch.setenv(webhook.URL, "http://127.0.0.1:1/other")
    monkeypatch.setenv(webhook.SECRET, secret)
    assert webhook.configured() == Webhook("http://127.0.0.1:1/other", KEY)
    monkeypatch.setenv(webhook.SECRET, "whsec_c2hvcnQ=")
    with pytest.raises(
        ParamsError, match="not a secret; allowed: whsec_ and base64 of 24 or more bytes"
    ) as told:
        webhook.configured()
    assert "c2hvcnQ" not in str(told.value)
    monkeypatch.setenv(webhook.URL, "file:///etc/passwd")
    with pytest.raises(ParamsError, match="not an address; allowed: https://host/path"):
        webhook.configured()


def test_prometheus_hears_of_an_alarm_while_it_lasts_and_whether_anybody_looks(redis_url: str) -> None:
    def told(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, labels)

    found = [DISK]
    with Redis.from_url(redis_url) as redis:
        publish_alarms(redis)
        assert (told("endcap_alarm", kind="disk"), told("endcap_lookout")) == (0, 0)
        lookout = Lookout(redis, {"disk": lambda: found}, PARAMS, "shop", lambda *_: "")
        lookout.look(1000.0)
        publish_alarms(redis)
        assert (told("endcap_alarm", kind="disk"), told("endcap_lookout")) == (1, 1)
        assert told("endcap_alarm", kind="drift") == 0
        found.clear()
        lookout.look(1001.0)
        lookout.look(1001.0 + PARAMS.over_s)
        publish_alarms(redis)
        assert told("endcap_alarm", kind="disk") == 0
