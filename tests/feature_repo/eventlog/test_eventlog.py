"""The logs of events, each by the same contract; and how the log is named."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from shops.eventlog_contract import LEASE, EventLogContract, event, written
from shops.stream import LIVE, assert_same, consumer, folded, open_shop, rows, stream_params

from feature_repo.errors import ParamsError
from feature_repo.eventlog.contract import Holder
from feature_repo.eventlog.kafka_client import Offsets, client_options
from feature_repo.eventlog.kafka_reader import KafkaLog
from feature_repo.eventlog.keys import DEAD, KafkaTopic, kafka_topic, partition_of
from feature_repo.eventlog.open import open_log
from feature_repo.eventlog.redis_reader import RedisLog

pytest_plugins = ("shops.kafka",)


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


class TestRedisLog(EventLogContract):
    def test_it_is_the_log_unless_another_is_named(self, redis: Any) -> None:
        assert isinstance(open_log(redis, stream_params()), RedisLog)


@pytest.mark.usefixtures("kafka")
class TestKafkaLog(EventLogContract):
    def test_it_is_the_log_where_the_environment_names_it(self, redis: Any) -> None:
        assert isinstance(open_log(redis, stream_params()), KafkaLog)

    def test_a_position_that_the_topic_no_longer_holds_is_told_and_reading_goes_on(
        self, log: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(3):
            log.append(0, b"%d" % number, None)
        with caplog.at_level(logging.ERROR):
            log.open({0: "500"})
        assert (
            "has the entries 0 to 2: it does not hold 501, the next of visitors; reading on at 0"
            in caplog.text
        )
        assert len(self.read(log, 3)) == 3

    def test_events_are_accepted_while_redis_is_away(self, redis: Any, log: Any) -> None:
        async def write(writer: Any) -> Any:
            return await writer.write([event(1), event(2)])

        assert len(written("redis://127.0.0.1:1/0", write)) == 2
        log.open(dict.fromkeys(range(4)))
        assert len(self.read(log, 2)) == 2

    def test_the_stream_over_it_makes_the_rows_that_the_folds_make(self, redis: Any, log: Any) -> None:
        for one in (*LIVE[:150], *LIVE[100:150]):
            log.append(partition_of(one["session_id"], 4), orjson.dumps(one), None)
        log.append(3, b"[1]", None)
        consumer("first", batch=16).run(until_empty=True)
        assert_same(rows(redis), folded(LIVE[:150]))
        ((_, letter),) = redis.xrange(DEAD)
        assert letter[b"partition"] == b"3" and letter[b"reason"].startswith(b"event: [1]")
        for one in LIVE[150:200]:
            log.append(partition_of(one["session_id"], 4), orjson.dumps(one), None)
        consumer("second", batch=16).run(until_empty=True)
        assert_same(rows(redis), folded(LIVE[:200]))

    def test_more_partitions_than_the_topic_has_are_refused(self, redis: Any, kafka: str) -> None:
        log = open_log(redis, stream_params(partitions=5), "visitors", Holder(LEASE, "reader"))
        for ask in (log.check, lambda: log.open({0: None})):
            with pytest.raises(ParamsError, match=r"stream.partitions: 5 is not allowed .* at most its 4"):
                ask()
        log.close()

    def test_brokers_that_are_away_are_an_os_error(self) -> None:
        offsets = Offsets(KafkaTopic("127.0.0.1:1", "events", 4))
        with pytest.raises(OSError, match=r"broker connections are down|timed out"):
            offsets.spans()


@pytest.mark.parametrize(
    ("address", "topic"),
    [
        ("redis", None),
        ("kafka://127.0.0.1:9092/shop", KafkaTopic("127.0.0.1:9092", "shop", 4)),
        ("kafka://a:1,b:2/shop.events-1", KafkaTopic("a:1,b:2", "shop.events-1", 4)),
    ],
)
def test_an_address_names_a_log(
    redis: Any, monkeypatch: pytest.MonkeyPatch, address: str, topic: KafkaTopic | None
) -> None:
    assert kafka_topic(stream_params(log=address)) == topic
    monkeypatch.setenv("ENDCAP_EVENT_LOG", address)
    assert kafka_topic(stream_params()) == topic


@pytest.mark.parametrize(
    "address", ["", "rabbit", "kafka://host:1", "kafka:///topic", "kafka://h:1/a b", "kafka://h:1/é"]
)
def test_an_address_that_names_no_log_is_refused(redis: Any, address: str) -> None:
    with pytest.raises(ParamsError, match=r"stream.log: .* allowed: redis, or kafka://HOST:PORT"):
        kafka_topic(stream_params(log=address))


def test_options_come_from_a_file_and_a_bad_line_is_named_without_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# TLS\nsecurity.protocol = SASL_SSL\n\nsasl.password=a=b\n")
    monkeypatch.setenv("ENDCAP_KAFKA_OPTIONS", str(path))
    found = client_options(KafkaTopic("h:1", "t", 4))
    assert (found["security.protocol"], found["sasl.password"]) == ("SASL_SSL", "a=b")
    path.write_text("x=1\nsecret-that-lost-its-name\n")
    with pytest.raises(ParamsError, match="line 2 is not allowed; allowed: name=value") as caught:
        client_options(KafkaTopic("h:1", "t", 4))
    assert "secret" not in str(caught.value)


def test_a_shop_with_its_log_in_redis_imports_no_client_of_kafka() -> None:
    used = "pipelines.stream.worker, monitoring.experiment.tail, serving.http.ingress"
    code = f"import sys; sys.modules['confluent_kafka'] = None; import {used}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
