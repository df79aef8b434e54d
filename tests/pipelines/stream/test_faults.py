"""Kill -9 of consumers, service and Redis while events and changes of items come in: none is lost, none
counts twice.

ENDCAP_FAULT_ROUNDS=20 repeats it with other dice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from shops.faults import FaultShop, fault_shop, faulty_round
from shops.kafka import new_topic
from shops.keeper import assert_kept
from shops.small import open_home
from shops.stream import as_stored, assert_same, behind, folded, keys_of, pending, rows, started, wait_until

pytest_plugins = ("shops.kafka",)

pytestmark = pytest.mark.fault
ROUNDS = int(os.environ.get("ENDCAP_FAULT_ROUNDS", "1"))
KILLS = ["consumer", "consumer", "redis", "redis", "service"]


@pytest.fixture(scope="module", params=["redis", "kafka"])
def shop(
    request: pytest.FixtureRequest, kafka_servers: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultShop]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_EVENT_LOG", "redis" if request.param == "redis" else new_topic(kafka_servers))
        with fault_shop(open_home(tmp_path_factory.mktemp("shop"), patch)) as one:
            yield one


@pytest.mark.parametrize("number", range(ROUNDS))
def test_kill_9_at_random_loses_nothing_that_was_accepted_and_counts_nothing_twice(
    shop: FaultShop, number: int
) -> None:
    clients, keepers = faulty_round(shop, number, KILLS, pause_s=0.8)
    redis = shop.redis()
    wait_until(lambda: started(redis) and behind(redis) == 0, 120)
    accepted = as_stored(event for client in clients for event in client.accepted)
    expected = folded(accepted, keys_of(accepted))
    assert_same(rows(redis, keys_of(accepted)), expected)
    assert_kept(redis, shop.home, keepers)
    assert len(accepted) >= 900 and sum(client.resent for client in clients) > 0
    assert pending(redis) == 0
    assert shop.killed == {victim: KILLS.count(victim) * (number + 1) for victim in set(KILLS)}
