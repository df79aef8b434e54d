"""A running shop under random faults: what was accepted counts once, every list is full, all heals.

    make chaos                  ten minutes
    make chaos SEED=7 MINUTES=2

Real processes: Redis with its append-only file, two consumers, a service of two workers, the console, the
guard, and a release engineer who promotes, rolls out and takes back all the while.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from shops.release import open_home, write_candidate
from shops.service import free_port
from shops.storm import ITEMS, Storm, manage, run
from shops.stream import assert_same, behind, folded, keys_of, pending, rows, wait_until
from shops.traffic import Asker, Visitor

from feature_repo.clock import micros
from feature_repo.events import EARLIEST
from feature_repo.features.catalogue import ITEM_CATALOGUE, catalogue_rows
from feature_repo.online import changes
from feature_repo.online.rows import OnlineView, write_newer
from feature_repo.ports import service_url
from pipelines.local import stack
from serving.release import state

SEED = int(os.environ.get("ENDCAP_CHAOS_SEED", "1"))
MINUTES = float(os.environ.get("ENDCAP_CHAOS_MINUTES", "10"))
ASKERS, VISITORS = 4, 3
PAUSE_S = 2.5  # between two faults, on average
HEALTHY_S = 30.0  # after the last one


@pytest.fixture
def storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path) -> Iterator[Storm]:
    """A shop as `endcap up` starts it, with one release of 60 items."""
    home = open_home(tmp_path, monkeypatch, empty_registry, "")
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("REDIS", "SERVICE", "CONSOLE"):
        monkeypatch.setenv(f"ENDCAP_{name}_PORT", str(free_port()))
    (home / "run/cache").unlink()  # this shop compiles for itself
    params = yaml.safe_load((home / "params.yaml").read_text())
    params["serving"]["workers"] = 2
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    found = Storm(home, service_url(), random.Random(SEED))
    try:
        stack.bring_up(("redis",))
        parts = write_candidate(home, "first", items=ITEMS)
        with found.redis() as there:
            stock = catalogue_rows(parts / "catalogue.parquet").to_pylist()
            names = [column.name for column in ITEM_CATALOGUE.columns]
            held = [(row["item_id"], micros(EARLIEST), {name: row[name] for name in names}) for row in stock]
            write_newer(there, OnlineView(ITEM_CATALOGUE, "endcap"), held)
            changes.mark(there)
        run(found, "promote", "--direct")
        stack.bring_up()
        yield found
    finally:
        stack.take_down()


@pytest.mark.chaos
def test_a_shop_keeps_its_promises_whatever_befalls_it(storm: Storm) -> None:
    askers = [Asker(storm.url, 10 * SEED + i) for i in range(ASKERS)]
    visitors = [Visitor(storm, f"chaos {SEED} visitor {i}", 100 * SEED + i) for i in range(VISITORS)]
    enough = threading.Event()
    jobs = [threading.Thread(target=one.run, args=(enough,)) for one in (*askers, *visitors)]
    jobs.append(threading.Thread(target=manage, args=(storm, enough)))
    began = time.monotonic()
    for job in jobs:
        job.start()
    try:
        while time.monotonic() < began + 60 * MINUTES:
            time.sleep(storm.dice.uniform(0, 2 * PAUSE_S))
            storm.strike()
        last = time.monotonic()
        while illness := ailing(storm):
            assert time.monotonic() - last < HEALTHY_S, illness
        healed_s = time.monotonic() - last
    finally:
        enough.set()
        for job in jobs:
            job.join()
    tell(storm, askers, visitors, time.monotonic() - began, healed_s)
    assert not storm.odd, "\n\n".join(storm.odd)
    assert not [visitor.error for visitor in visitors if visitor.error]
    unexplained = [
        told for one in askers for told in (*one.unanswered, *one.wrong) if not storm.explained(told[0])
    ]
    assert not unexplained, f"{unexplained[:10]}\n{storm.around(unexplained[0][0])}"
    assert not [told for one in askers for _, told in one.wrong if not told.startswith("503 0 ")]
    with storm.redis() as there:
        wait_until(lambda: behind(there) == 0, 60)
        accepted = [event for one in visitors for event in one.accepted]
        assert_same(rows(there, keys_of(accepted)), folded(accepted, keys_of(accepted)))
        assert pending(there) == 0
        changes = [entry for entry in state.read_audit(there, 100_000) if entry["version"]]
        now = state.present(there)
        assert [entry["version"] for entry in changes] == list(range(now.version, 0, -1))


def ailing(storm: Storm) -> str:
    """What a release engineer or a load balancer would see; empty where all is well."""
    code, told = run(storm, "status")
    try:
        ready = httpx.get(f"{storm.url}/readyz", timeout=2)
    except httpx.TransportError as error:
        return f"{told}\n/readyz: {error}"
    return told * bool(code) or ready.text * (ready.status_code != 200)


def tell(storm: Storm, askers: list[Asker], visitors: list[Visitor], took_s: float, healed_s: float) -> None:
    full, wrong = sum(one.full for one in askers), sum(len(one.wrong) for one in askers)
    lost = sum(len(one.unanswered) for one in askers)
    faults = Counter(fault.name for fault in storm.faults)
    print(f"\nseed {SEED}: {took_s:.0f} s, {faults.total()} faults, healthy {healed_s:.1f} s after the last")
    for name, count in sorted(faults.items()):
        print(f"  {name:<28}{count:>5}")
    print(f"answers: {full:,} full lists, {lost:,} without an answer, {wrong:,} refused with a reason")
    for rung, count in sorted(sum((Counter(one.served_from) for one in askers), Counter()).items()):
        print(f"  {rung:<28}{count:>8,}")
    print(f"  slowest {max(one.slowest_s for one in askers):.2f} s")
    accepted = sum(len(one.accepted) for one in visitors)
    print(f"events: {accepted:,} accepted, {sum(one.resent for one in visitors):,} batches sent again")
    for name, count in sorted(storm.commands.items()):
        print(f"  endcap {name:<28}{count:>5}")
