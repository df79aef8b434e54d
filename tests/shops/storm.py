"""A shop as `endcap up` starts it, what fate does to it, and a release engineer who never rests.

The kernel does what fate does: KILL, STOP and CONT, files cut short. Who is killed and has nobody to start
him again is started by `endcap up`, as a machine's init would.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
import redis
import yaml
from shops.release import open_home, write_candidate
from shops.service import free_port
from shops.stand import damaged

from feature_repo.clock import micros
from feature_repo.events import EARLIEST
from feature_repo.features.catalogue import ITEM_CATALOGUE, catalogue_rows
from feature_repo.online import changes
from feature_repo.online.connection import client
from feature_repo.online.listings import write_said
from feature_repo.online.rows import OnlineView
from feature_repo.params import shop
from feature_repo.ports import redis_url, service_url
from pipelines.local import process, stack
from serving.release import state

ITEMS = 60  # of the catalogue
CAUGHT_UP_S = 10.0  # until what was said of items is in every worker again
AGAIN_S = 20.0  # until a killed worker answers again, trees compiled anew included


@dataclass
class Fault:
    """What was done, from when to when (monotonic seconds), and whether the service itself was hit."""

    name: str
    began: float
    ended: float = 0.0
    of_service: bool = False


@dataclass
class Storm:
    """The shop, the dice, and what was done to it."""

    home: Path
    url: str
    dice: random.Random
    faults: list[Fault] = field(default_factory=list)
    commands: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)

    def redis(self) -> redis.Redis:
        return client(redis_url(), socket_timeout=5)

    def leader(self, name: str) -> psutil.Process:
        record = process.find(shop().run_dir(), name)
        assert record is not None, f"{name} does not run"
        return psutil.Process(record.pid)

    def member(self, name: str, mark: str) -> psutil.Process | None:
        """One process below the leader whose command line has `mark`; None while there is none."""
        with suppress(psutil.NoSuchProcess):
            family = sorted(self.leader(name).children(recursive=True), key=lambda one: one.pid)
            found = [one for one in family if any(mark in word for word in one.cmdline())]
            return self.dice.choice(found) if found else None
        return None

    def strike(self) -> None:
        """One fault, and whoever is dead afterwards is started again."""
        name = self.dice.choice(list(FAULTS))
        fault = Fault(name, time.monotonic(), of_service=name in HITS_SERVICE)
        self.faults.append(fault)
        with suppress(psutil.NoSuchProcess):
            FAULTS[name](self)
        stack.bring_up()
        fault.ended = time.monotonic()

    def around(self, when: float) -> list[Fault]:
        """What was done shortly before and after."""
        return [fault for fault in self.faults if when - 60 < fault.began < when + 10]

    def explained(self, when: float) -> bool:
        """Whether an answer may have failed then: the service was hit, and workers take AGAIN_S to start."""
        return any(f.of_service and f.began - 1 < when < (f.ended or when) + AGAIN_S for f in self.faults)

    def delayed(self, when: float) -> bool:
        """Whether an answer may rest on items of before: tasks of the killed are taken over late."""
        return any(f.began - 1 < when < (f.ended or when) + CAUGHT_UP_S for f in self.faults)


def kill(name: str) -> Callable[[Storm], None]:
    def strike(storm: Storm) -> None:
        leader = storm.leader(name)
        leader.kill()
        leader.wait(30)  # a busy machine takes its time; until then it counts as running
        time.sleep(storm.dice.uniform(0, 1.5))

    return strike


def hit(name: str, mark: str, stop_s: float = 0.0) -> Callable[[Storm], None]:
    """KILL one process below a leader, or STOP it for a while."""

    def strike(storm: Storm) -> None:
        if (victim := storm.member(name, mark)) is None:
            return
        if not stop_s:
            victim.kill()
            return
        with frozen(victim, storm.dice.uniform(0.2, stop_s)):
            pass

    return strike


@contextmanager
def frozen(victim: psutil.Process, seconds: float) -> Iterator[None]:
    victim.suspend()
    try:
        time.sleep(seconds)
        yield
    finally:
        victim.resume()


def freeze_redis(storm: Storm) -> None:
    with frozen(storm.leader("redis"), storm.dice.uniform(0.2, 4.0)):
        pass


def cut_trees(storm: Storm) -> None:
    """Compiled trees are cut short, and a worker that has to read them again begins."""
    for file in sorted((storm.home / "run/cache").glob("*.o")):
        with file.open("r+b") as compiled:
            compiled.truncate(storm.dice.randrange(0, file.stat().st_size + 1))
    hit("service", WORKER)(storm)


def damage_previous(storm: Storm) -> None:
    """Nobody goes back to a release that is damaged, whatever he was told."""
    with storm.redis() as there:
        before = state.present(there)
    if before.previous is None or before.previous == before.champion:
        return
    file = storm.home / before.previous.path / storm.dice.choice(["ease.npz", "ranker.txt", "rails.json"])
    if not file.exists():
        return
    with damaged(file):
        _, told = run(storm, "rollback", "--to", before.previous.digest)
        with storm.redis() as there:
            now = state.present(there)
        if now.version == before.version + 1 and now.champion == before.previous:
            storm.odd.append(f"went back to a damaged release: {told}")


WORKER, CONSUMER = "_bentoml_impl.worker.service", "spawn_main"
HITS_SERVICE = (
    "kill service",
    "kill worker",
    "freeze worker",
    "cut compiled trees",
    "kill redis",
    "freeze redis",
)
FAULTS: dict[str, Callable[[Storm], None]] = {
    "kill redis": kill("redis"),
    "kill service": kill("service"),
    "kill stream": kill("stream"),
    "kill guard": kill("guard"),
    "kill embed": kill("embed"),
    "kill consumer": hit("stream", CONSUMER),
    "kill worker": hit("service", WORKER),
    "freeze consumer": hit("stream", CONSUMER, 6.0),
    "freeze worker": hit("service", WORKER, 1.5),
    "freeze redis": freeze_redis,
    "cut compiled trees": cut_trees,
    "damage the former release": damage_previous,
}


def run(storm: Storm, *args: str) -> tuple[int, str]:
    """`endcap ARGS` as a process; it may be refused in one line, and nothing else."""
    command = [sys.executable, "-m", "pipelines", *args]
    done = subprocess.run(command, cwd=storm.home, capture_output=True, text=True, timeout=300, check=False)
    told = done.stdout + done.stderr
    storm.commands[f"{' '.join(args[:2])}: {done.returncode}"] += 1
    if done.returncode not in (0, 1) or "Traceback" in told or "bug of Endcap" in told:
        storm.odd.append(f"endcap {' '.join(args)}: {done.returncode}\n{told}")
    return done.returncode, told


def manage(storm: Storm, enough: threading.Event) -> None:
    """A release engineer who never rests. A command may be refused; what it says must then be true."""
    dice, number = random.Random(storm.dice.random()), 0
    while not enough.is_set():
        act = dice.choice(["release", "start", "advance", "stop", "rollback", "rollback", "status"])
        if act == "release":
            number += 1
            write_candidate(storm.home, f"chaos {number}", items=ITEMS)
            if direct := dice.random() < 0.5:
                run(storm, "rollout", "stop")
            run(storm, "promote", *(["--direct"] if direct else []))
        elif act in ("start", "advance", "stop"):
            run(storm, "rollout", act)
        elif act == "rollback":
            run(storm, "rollback")
        else:
            run(storm, "status")
        enough.wait(dice.uniform(0, 4))


@contextmanager
def storm_shop(folder: Path, patch: pytest.MonkeyPatch, registry: Path, seed: int) -> Iterator[Storm]:
    """A shop as `endcap up` starts it, with one release of ITEMS items and two workers."""
    home = open_home(folder, patch, registry, "")
    patch.delenv("REDIS_URL")
    patch.setenv("OMP_NUM_THREADS", "1")
    for name in ("REDIS", "SERVICE", "CONSOLE"):
        patch.setenv(f"ENDCAP_{name}_PORT", str(free_port()))
    (home / "run/cache").unlink()  # this shop compiles for itself
    params = yaml.safe_load((home / "params.yaml").read_text())
    params["serving"]["workers"] = 2
    params["stack"]["ready_timeout_s"] = 300  # a busy machine is no fault of the shop
    # A few visits of one address do what thousands do: all of it is to count, and every row is compared.
    params["access"]["counting"] = dict.fromkeys(params["access"]["counting"], 10**9)
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    found = Storm(home, service_url(), random.Random(seed))
    try:
        stack.bring_up(("redis",))
        parts = write_candidate(home, "first", items=ITEMS)
        with found.redis() as there:
            stock = catalogue_rows(parts / "catalogue.parquet").to_pylist()
            names = [column.name for column in ITEM_CATALOGUE.columns]
            held = [(row["item_id"], micros(EARLIEST), {name: row[name] for name in names}) for row in stock]
            write_said(there, OnlineView(ITEM_CATALOGUE), held)
            changes.mark(there)
        run(found, "promote", "--direct")
        stack.bring_up()
        yield found
    finally:
        stack.take_down()


def ailing(storm: Storm) -> str:
    """What a release engineer or a load balancer would see; empty where all is well."""
    code, told = run(storm, "status")
    try:
        ready = httpx.get(f"{storm.url}/readyz", timeout=2)
    except httpx.TransportError as error:
        return f"{told}\n/readyz: {error}"
    return told * bool(code) or ready.text * (ready.status_code != 200)
