"""The primary is killed, or falls silent for a while, under load: nothing accepted is lost or counted twice,
every answer is a full list, and what the old primary alone has is gone once it is a replica.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from redis import RedisError
from shops.failover import FailoverShop, applied, failover_shop, under_load
from shops.sentinels import patiently
from shops.stream import as_stored, assert_same, keys_of, rows

pytestmark = pytest.mark.fault
ROUNDS = int(os.environ.get("ENDCAP_FAULT_ROUNDS", "1"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailoverShop]:
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch, failover_shop(folder, patch) as found:
        yield found


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("fault", ["kill", "silence"])
def test_a_primary_that_falls_loses_no_accepted_event_and_no_answer(
    shop: FailoverShop, fault: str, number: int
) -> None:
    group, old = shop.group, shop.group.primary()
    held = group.redis(old)
    with under_load(shop, f"{fault} {number} shopper", seed=number) as (shopper, asker):
        began = time.monotonic()
        if fault == "kill":
            for port in (old, group.sentinels[0]):  # a machine that dies takes its sentinel along
                group.processes[port].kill()
                group.processes[port].wait()
        else:
            split = held.connection_pool.get_connection()
            group.processes[old].suspend()
            split.send_command("SET", "split", "brain")  # it is taken as soon as the old primary goes on
        new = patiently(
            lambda: [port for port in group.ports if port != old and group.role(port) == "master"]
        )
        taken_s = time.monotonic() - began
        count = len(shopper.accepted)
        patiently(lambda: shopper.goes_on(count))  # the door is open again
        if fault == "kill":
            group.start(old)
            group.start_sentinel(group.sentinels[0])
            patiently(lambda: group.redis(old).ping())
            with pytest.raises(RedisError):  # no replica follows it any more, or it is one itself
                group.redis(old).set("split", "brain")
        else:
            group.processes[old].resume()
        patiently(lambda: group.role(old) == "slave" and group.settled())
    found, expected = applied(shop, shopper)
    assert group.primary() in new
    assert_same(found, expected)
    assert len(shopper.accepted) > 20 and shopper.resent > 0
    assert asker.failed == [] and len(asker.answered) > 20
    events = as_stored(shopper.accepted)
    for port in group.ports:
        redis = group.redis(port)
        patiently(lambda redis=redis: rows(redis, keys_of(events)) == found)
        assert redis.exists("split") == 0
    slowest = max(took for _, took, _ in asker.answered)
    print(
        f"{fault}: new primary after {taken_s:.1f} s, longest POST {shopper.longest_s:.1f} s, "
        f"{len(shopper.accepted)} events, {shopper.resent} tries refused; {len(asker.answered)} answers, "
        f"without rows for {asker.degraded_s():.1f} s, slowest {slowest:.2f} s"
    )
