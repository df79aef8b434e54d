"""Kill -9 of every process of a shop in turn, round after round: no accepted change of an item is lost.

ENDCAP_FAULT_ROUNDS=20 python -m pytest -s -m chaos tests/chaos/test_item_changes.py
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from shops.keeper import assert_embedded, assert_kept, keepers_of
from shops.storm import CONSUMER, WORKER, Fault, Storm, ailing, hit, kill, storm_shop
from shops.stream import behind, pending, wait_until

from pipelines.local import stack

ROUNDS = int(os.environ.get("ENDCAP_FAULT_ROUNDS", "2"))
KEEPERS, HEALTHY_S = 3, 60.0
VICTIMS: dict[str, Callable[[Storm], None]] = {
    **{name: kill(name) for name in stack.NAMES},
    "worker": hit("service", WORKER),
    "consumer": hit("stream", CONSUMER),
}


@pytest.mark.chaos
def test_no_accepted_change_is_lost_whoever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path
) -> None:
    with storm_shop(tmp_path, monkeypatch, empty_registry, seed=1) as storm:
        keepers, enough = keepers_of(storm.url, KEEPERS, 1), threading.Event()
        jobs = [threading.Thread(target=keeper.run, args=(enough,)) for keeper in keepers]
        for job in jobs:
            job.start()
        killed: Counter[str] = Counter()
        try:
            for number in range(ROUNDS):
                for name in storm.dice.sample(sorted(VICTIMS), len(VICTIMS)):
                    if name not in stack.NAMES:
                        stack.bring_up()  # the one above it may be dead
                    storm.faults.append(Fault(f"kill {name}", time.monotonic()))
                    VICTIMS[name](storm)
                    killed[name] += 1
                    time.sleep(storm.dice.uniform(0, 1.0))
                stack.bring_up()  # whoever has nobody to start him again
                began = time.monotonic()
                while illness := ailing(storm):
                    assert time.monotonic() - began < HEALTHY_S, illness
                said = sum(sum(keeper.kinds.values()) for keeper in keepers)
                print(f"round {number + 1}: {said:,} changes, well after {time.monotonic() - began:.1f} s")
        finally:
            enough.set()
            for job in jobs:
                job.join()
        with storm.redis() as redis:
            wait_until(lambda: behind(redis) == 0, 60)
            assert pending(redis) == 0
            assert_kept(redis, storm.home, keepers)
            assert_embedded(redis, keepers)
        assert killed == Counter(dict.fromkeys(VICTIMS, ROUNDS))
        assert sum(keeper.resent for keeper in keepers) > 0
        print(sum((keeper.kinds for keeper in keepers), Counter()))
