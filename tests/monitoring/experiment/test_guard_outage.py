"""`endcap rollout watch` as a process, over a Redis that is killed, hangs, loads and refuses writes."""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from shops.canary import FEEDBACK, PARAMS, Shop, start_canary
from shops.service import free_port, stop

from monitoring.experiment.attribution import Feedback
from monitoring.experiment.tail import Tail
from monitoring.experiment.watch import Guard
from pipelines.local.stack import DURABLE, guard_looks, redis_server
from serving.release import looks
from serving.release import state as control
from serving.release.router import CHALLENGER, CHAMPION

pytestmark = pytest.mark.fault
ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60


def until(true: Callable[[], Any], what: str) -> Any:
    """The first true answer; a Redis that is away has none."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if found := true():
                return found
        except RedisError:
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@dataclass
class Store:
    """A Redis with an append-only file, which may be killed and started again."""

    folder: Path
    port: int
    process: psutil.Popen

    @classmethod
    def start(cls, folder: Path, port: int, *more: str) -> Store:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *DURABLE, *more)
        return cls(folder, port, psutil.Popen([redis_server(), *options], stdout=subprocess.DEVNULL))

    def client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=5)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def again(self, *more: str) -> None:
        self.process = Store.start(self.folder, self.port, *more).process


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    started = Store.start(tmp_path, free_port())
    until(lambda: started.client().ping(), "redis did not start")
    yield started
    with suppress(psutil.NoSuchProcess):
        started.process.resume()
    stop(started.process)


@dataclass
class Watch:
    """The guard's process and what it said, one JSON value per line."""

    process: psutil.Popen
    output: Path

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def told(self, key: str) -> int:
        return sum(key in line for line in self.said())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    monkeypatch.setenv("ENDCAP_HOME", str(folder))
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{store.port}/0")
    return folder


@contextmanager
def watching(home: Path) -> Iterator[Watch]:
    output = home / "said"
    command = [sys.executable, "-m", "pipelines", "rollout", "watch", "--until-decided", "--json"]
    with output.open("wb") as out:
        process = psutil.Popen([*command, "--poll", "0.1"], cwd=home, env=os.environ.copy(), stdout=out)
    try:
        yield Watch(process, output)
    finally:
        stop(process)


@pytest.fixture
def watch(home: Path) -> Iterator[Watch]:
    with watching(home) as started:
        yield started


class Loading(socketserver.StreamRequestHandler):
    """Answers each command as a Redis does that still reads its file."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            if line.startswith(b"*"):
                self.wfile.write(b"-LOADING Redis is loading the dataset in memory\r\n")
                self.server.answered += 1


class LoadingServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    answered = 0


def test_the_guard_outlives_every_fault_of_redis_and_counts_everybody_once(
    store: Store, watch: Watch
) -> None:
    redis = store.client()
    start_canary(redis)
    shop = Shop(redis, {CHAMPION: 0.1, CHALLENGER: 0.1})
    until(lambda: looks.guard_age_s(redis) is not None, "no heartbeat")
    assert guard_looks(f"redis://127.0.0.1:{store.port}/0")

    def visited(shoppers: int) -> None:
        """They come, and the guard sees each of them once, with each of their clicks."""
        until(lambda: shop.open(shoppers) or True, "nobody came")
        wanted = [shop.came[CHALLENGER], shop.came[CHAMPION]]
        wanted += [shop.clicked[CHALLENGER], shop.clicked[CHAMPION]]

        def counted() -> list[int]:
            found = looks.read_looks(redis, count=1)[-1]
            days = [found["user_days"], found["champion_user_days"]]
            ctrs = found["ctr"], found["champion_ctr"]
            return [*days, *(round(ctr * 24 * came) for ctr, came in zip(ctrs, days, strict=True))]

        until(lambda: counted() == wanted, f"it has not counted {wanted}")
        time.sleep(0.3)  # and goes on looking
        assert counted() == wanted

    def noticed(times: int) -> None:
        until(lambda: watch.told("waiting") == times, "it did not say that it waits")

    def back(times: int) -> None:
        until(lambda: watch.told("waited_s") == times, "it did not say that it looks again")

    visited(200)
    store.kill()
    noticed(1)
    store.again()
    visited(100)
    back(1)
    store.process.suspend()  # it hangs
    noticed(2)
    store.process.resume()
    visited(100)
    back(2)
    redis.replicaof("127.0.0.1", "1")
    noticed(3)
    assert "read only replica" in [line["waiting"] for line in watch.said() if "waiting" in line][-1]
    redis.replicaof("NO", "ONE")
    visited(100)
    back(3)
    store.kill()
    with LoadingServer(("127.0.0.1", store.port), Loading) as still:
        threading.Thread(target=still.serve_forever, args=(0.05,), daemon=True).start()
        until(lambda: still.answered > 1, "the guard did not ask while it loaded")
        still.shutdown()
    store.again()
    visited(100)
    noticed(4)
    back(4)
    assert watch.process.poll() is None and control.present(redis).challenger
    assert [entry["what"] for entry in control.read_audit(redis)] == ["start_canary", "install"]


def test_a_guard_that_is_started_before_redis_waits_for_it(store: Store, home: Path) -> None:
    store.kill()
    with watching(home) as watch:
        until(lambda: watch.told("waiting") == 1, "it did not say that it waits")
        assert watch.process.poll() is None
        store.again()
        redis = store.client()
        until(lambda: watch.process.poll() == 1, "no canary is on trial: it ends")
        assert "no canary is on trial" in watch.said()[-1]["message"]
        assert looks.guard_age_s(redis) is not None


def test_an_error_between_the_two_logs_loses_no_list_and_counts_none_twice(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    start_canary(redis)
    shop, feedback = Shop(redis, {CHAMPION: 0.1, CHALLENGER: 0.1}), Feedback(FEEDBACK)
    tail = Tail(redis)
    whole = tail._events

    class Broken:
        def next(self) -> list[Any]:
            raise RedisConnectionError("cut")

    for _ in range(3):
        shop.open(50)
        tail._events = Broken()
        with pytest.raises(RedisConnectionError, match="cut"):
            tail.feed(feedback)
        tail._events = whole
        tail.feed(feedback)
        for arm in (CHAMPION, CHALLENGER):
            statistics = feedback.statistics(arm)
            assert (statistics.shoppers, statistics.clicks) == (shop.came[arm], shop.clicked[arm])


def test_a_verdict_whose_answer_was_lost_is_followed_all_the_same(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis, followed = Redis.from_url(redis_url), []
    start_canary(redis)
    guard = Guard(redis, PARAMS, FEEDBACK, followed.append)
    control.publish_health(redis, CHALLENGER, requests=50, errors=40, empty=0, p99_ms=9.0)
    commit = control.rollback

    def cut(*args: Any) -> Any:
        commit(*args)
        raise RedisConnectionError("cut before the answer")

    monkeypatch.setattr(control, "rollback", cut)
    with pytest.raises(RedisConnectionError):
        guard.look(0)
    assert followed == []
    assert guard.look(0) is None
    assert followed == [control.present(redis)]
    assert [entry["what"] for entry in control.read_audit(redis)] == ["rollback", "start_canary", "install"]
