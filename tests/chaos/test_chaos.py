"""A running shop under random faults: what was accepted counts once, every list is full, all heals.

    make chaos                  ten minutes
    make chaos SEED=7 MINUTES=2

Real processes: Redis with its append-only file, two consumers, `endcap embed`, a service of two workers, the
console, the guard. All the while a release engineer promotes, rolls out and takes back, keepers change prices
and stock, add and delete items, and a merchandiser publishes rules and takes them back.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from shops.keeper import assert_embedded, assert_kept, keepers_of
from shops.merchandiser import Merchandiser, assert_followed
from shops.storm import Storm, ailing, manage, storm_shop
from shops.stream import as_stored, assert_same, behind, folded, keys_of, pending, rows, wait_until
from shops.traffic import Asker, SegmentVisitor, Visitor

from serving.release import state

SEED = int(os.environ.get("ENDCAP_CHAOS_SEED", "1"))
MINUTES = float(os.environ.get("ENDCAP_CHAOS_MINUTES", "10"))
ASKERS, VISITORS, KEEPERS = 4, 3, 2
PAUSE_S = 2.5  # between two faults, on average
CALM_S, EVERY_S = 20.0, 60.0  # without a fault, from minute to minute: all must be as if nothing had been
HEALTHY_S = 30.0  # after the last one


@pytest.fixture
def storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path) -> Iterator[Storm]:
    with storm_shop(tmp_path, monkeypatch, empty_registry, SEED) as found:
        yield found


@pytest.mark.chaos
def test_a_shop_keeps_its_promises_whatever_befalls_it(storm: Storm) -> None:
    keepers = keepers_of(storm.url, KEEPERS, SEED)
    merchandiser = Merchandiser(storm.redis)
    askers = [Asker(storm.url, 10 * SEED + i, keepers=keepers) for i in range(ASKERS)]
    kinds = (SegmentVisitor, *[Visitor] * (VISITORS - 1))
    visitors = [kind(storm, f"chaos {SEED} visitor {i}", 100 * SEED + i) for i, kind in enumerate(kinds)]
    enough = threading.Event()
    jobs = [
        threading.Thread(target=one.run, args=(enough,))
        for one in (*askers, *visitors, *keepers, merchandiser)
    ]
    jobs.append(threading.Thread(target=manage, args=(storm, enough)))
    began = calm = time.monotonic()
    for job in jobs:
        job.start()
    try:
        while time.monotonic() < began + 60 * MINUTES:
            if time.monotonic() > calm + EVERY_S:
                time.sleep(CALM_S)
                calm = time.monotonic()
            time.sleep(storm.dice.uniform(0, 2 * PAUSE_S))
            storm.strike()
        last = time.monotonic()
        while (illness := ailing(storm)) and time.monotonic() - last < HEALTHY_S:
            pass
        healed_s = time.monotonic() - last
        time.sleep(CALM_S)
    finally:
        enough.set()
        for job in jobs:
            job.join()
    tell(storm, askers, visitors, time.monotonic() - began, healed_s)
    print(f"items: {sum((keeper.kinds for keeper in keepers), Counter())}")
    print(f"rules: {merchandiser.changes} changes, {merchandiser.refused} refused")
    assert not illness, illness
    assert not storm.odd, "\n\n".join(storm.odd)
    assert not [visitor.error for visitor in visitors if visitor.error]
    unexplained = [
        told for one in askers for told in (*one.unanswered, *one.wrong) if not storm.explained(told[0])
    ]
    assert not unexplained, f"{unexplained[:10]}\n{storm.around(unexplained[0][0])}"
    assert not [told for one in askers for _, told in one.wrong if not told.startswith("503 0 ")]
    assert not [told for one in askers for told in one.mixed]
    assert min(one.pages for one in askers) > 0 and merchandiser.changes > MINUTES
    stale = [told for one in askers for told in one.late if not storm.delayed(told[0])]
    assert not stale, f"{len(stale)} of {sum(one.gone_asked for one in askers)}: {stale[:10]}"
    with storm.redis() as there:
        wait_until(lambda: behind(there) == 0, 60)
        accepted = as_stored(event for one in visitors for event in one.accepted)
        assert_same(rows(there, keys_of(accepted)), folded(accepted, keys_of(accepted)))
        assert pending(there) == 0
        assert_kept(there, storm.home, keepers)
        assert_embedded(there, keepers)
        audit = state.read_audit(there, 100_000)
        now = state.present(there)
        assert [entry["version"] for entry in audit if entry["version"]] == list(range(now.version, 0, -1))
        with httpx.Client(base_url=storm.url, timeout=10) as http:
            body = {"surface": "homepage_hero", "session_id": "the last"}
            assert_followed(there, audit, lambda: http.post("/v1/recommend", json=body).json()["items"])


def tell(storm: Storm, askers: list[Asker], visitors: list[Visitor], took_s: float, healed_s: float) -> None:
    full, wrong = sum(one.full for one in askers), sum(len(one.wrong) for one in askers)
    lost = sum(len(one.unanswered) for one in askers)
    faults = Counter(fault.name for fault in storm.faults)
    print(f"\nseed {SEED}: {took_s:.0f} s, {faults.total()} faults, healthy {healed_s:.1f} s after the last")
    for name, count in sorted(faults.items()):
        print(f"  {name:<28}{count:>5}")
    print(f"answers: {full:,} full lists, {lost:,} without an answer, {wrong:,} refused with a reason")
    pages, gone = sum(one.pages for one in askers), sum(one.gone_asked for one in askers)
    print(f"  {pages:,} pages; {gone:,} answers while items were gone")
    for rung, count in sorted(sum((Counter(one.served_from) for one in askers), Counter()).items()):
        print(f"  {rung:<28}{count:>8,}")
    print(f"  slowest {max(one.slowest_s for one in askers):.2f} s")
    accepted = sum(len(one.accepted) for one in visitors)
    print(f"events: {accepted:,} accepted, {sum(one.resent for one in visitors):,} batches sent again")
    for name, count in sorted(storm.commands.items()):
        print(f"  endcap {name:<28}{count:>5}")
