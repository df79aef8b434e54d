"""Kafka inside the test process: librdkafka's own mock broker, on a socket that any process can reach.

`pytest_plugins = ("shops.kafka",)` in a test module brings `kafka`: ENDCAP_EVENT_LOG names a new topic of
four partitions. The mock knows no instants (offsets_for_times) and cannot make topics of another size.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer


@pytest.fixture(scope="session")
def kafka_servers() -> Iterator[str]:
    """host:port of the mock broker; it lives as long as the client that holds it."""
    options = {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 3}
    holder = Producer(options)
    (broker,) = holder.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    del holder


def new_topic(servers: str) -> str:
    """The address of a log that holds nothing."""
    topic = f"events-{uuid.uuid4().hex}"
    maker = Producer({"bootstrap.servers": servers})
    deadline = time.monotonic() + 10
    while len(maker.list_topics(topic, timeout=10).topics[topic].partitions) != 4:
        assert time.monotonic() < deadline
    return f"kafka://{servers}/{topic}"


@pytest.fixture
def kafka(kafka_servers: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the log, which the environment names for this test."""
    address = new_topic(kafka_servers)
    monkeypatch.setenv("ENDCAP_EVENT_LOG", address)
    return address
