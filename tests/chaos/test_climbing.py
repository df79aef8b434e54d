"""A canary climbs under load while whoever moves it is killed and what it rests on fails, round after round.

ENDCAP_FAULT_ROUNDS=20 python -m pytest -s -m chaos tests/chaos/test_climbing.py
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from shops.release import alias_holders, write_candidate
from shops.storm import ITEMS, WORKER, Fault, Storm, ailing, hit, kill, run, storm_shop
from shops.traffic import Asker

from feature_repo.params import shop
from pipelines.local import stack
from pipelines.release.registry import Registry
from serving.release import state

ROUNDS = int(os.environ.get("ENDCAP_FAULT_ROUNDS", "2"))
ASKERS, HEALTHY_S = 2, 60.0
SERVES = 101  # beyond the canary's 100 %
TRIES = 10  # of a command that was refused or killed, before the state counts as stuck


def lock_mlflow(storm: Storm) -> None:
    """Somebody holds MLflow's store for some seconds."""
    with closing(sqlite3.connect(shop().run_dir() / "mlflow.db", isolation_level=None)) as store:
        store.execute("BEGIN EXCLUSIVE")
        time.sleep(storm.dice.uniform(0.5, 6.0))


def lose_mlflow(storm: Storm) -> None:
    """The store is away for some seconds."""
    path = shop().run_dir() / "mlflow.db"
    path.rename(path.with_suffix(".away"))
    time.sleep(storm.dice.uniform(0.5, 4.0))
    path.with_suffix(".away").replace(path)  # over an empty one that somebody may have made meanwhile


FAULTS: dict[str, Callable[[Storm], None]] = {
    "kill worker": hit("service", WORKER),
    "kill redis": kill("redis"),
    "kill guard": kill("guard"),
    "lock mlflow": lock_mlflow,
    "lose mlflow": lose_mlflow,
}
OF_SERVICE = ("kill worker", "kill redis")


def killed_at_work(storm: Storm, *args: str) -> None:
    """`endcap ARGS` begins, and is killed somewhere on its way."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *args],
        cwd=storm.home,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(storm.dice.uniform(0.5, 4.0))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def strike(storm: Storm, name: str) -> None:
    time.sleep(storm.dice.uniform(0, 2.0))
    fault = Fault(name, time.monotonic(), of_service=name in OF_SERVICE)
    storm.faults.append(fault)
    FAULTS[name](storm)
    stack.bring_up()
    fault.ended = time.monotonic()


def moved(storm: Storm, reached: Callable[[], bool], *args: str) -> None:
    """`endcap ARGS` until the state says so: under a fault, sometimes killed, repeated as a person would."""
    striker = threading.Thread(target=strike, args=(storm, storm.dice.choice(list(FAULTS))))
    striker.start()
    try:
        if storm.dice.random() < 0.5:
            killed_at_work(storm, *args)
    finally:
        striker.join()
    told = []
    while not reached() and len(told) < TRIES:
        told.append(run(storm, *args))
    assert reached(), told


@pytest.mark.chaos
def test_a_canary_climbs_to_the_end_whoever_is_killed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path
) -> None:
    with storm_shop(tmp_path, monkeypatch, empty_registry, seed=1) as storm:
        askers, enough = [Asker(storm.url, 10 + i) for i in range(ASKERS)], threading.Event()
        jobs = [threading.Thread(target=one.run, args=(enough,)) for one in askers]
        for job in jobs:
            job.start()
        try:
            for number in range(ROUNDS):
                climb(storm, number)
        finally:
            enough.set()
            for job in jobs:
                job.join()
        assert not storm.odd, "\n\n".join(storm.odd)
        lost = [told for one in askers for told in (*one.unanswered, *one.wrong)]
        assert not [told for told in lost if not storm.explained(told[0])]
        assert sum(one.full for one in askers) > 0
        print(f"{sum(one.full for one in askers):,} full lists, {len(lost)} lost; {dict(storm.commands)}")
        print(dict(Counter(fault.name for fault in storm.faults)))


def behind(digest: str) -> str:
    """What the aliases say of the champion, where it is not this one; the guard follows later."""
    named = alias_holders(Registry())["champion"].digest
    return f"the alias champion names {named}" * (named != digest)


def climb(storm: Storm, number: int) -> None:
    """A release from its promotion to 100 %, each move under a fault; then all of it is on record, once."""

    def percent() -> int:
        with storm.redis() as there:
            now = state.present(there)
        serves = now.champion.digest == digest
        tried = now.challenger is not None and now.challenger.digest == digest
        return SERVES if serves else now.percent if tried else 0

    write_candidate(storm.home, f"climb {number}", items=ITEMS)
    with storm.redis() as there:
        before = state.present(there)
    digest = ""
    for _ in range(TRIES):
        code, told = run(storm, "promote")
        if code == 0:
            break
    assert code == 0, told
    waiting = alias_holders(Registry())["challenger"]
    assert waiting is not None
    digest = waiting.digest
    moved(storm, lambda: percent() >= 10, "rollout", "start")
    moved(storm, lambda: percent() >= 50, "rollout", "advance", "--to", "50")
    moved(storm, lambda: percent() >= 100, "rollout", "advance", "--to", "100")
    moved(storm, lambda: percent() == SERVES, "rollout", "advance")
    began = time.monotonic()
    while illness := ailing(storm) or behind(digest):
        assert time.monotonic() - began < HEALTHY_S, illness
        run(storm, "rollout", "status")
    with storm.redis() as there:
        now = state.present(there)
        audit = [entry for entry in state.read_audit(there, 1000) if entry["version"]]
    assert [entry["version"] for entry in audit] == list(range(now.version, 0, -1))
    assert now.version == before.version + 4  # each step once, whatever was repeated
    assert now.champion.digest == digest and now.challenger is None
    print(f"round {number + 1}: version {now.version}, well after {time.monotonic() - began:.1f} s")
