"""Opens the shop's log of events: in Redis Streams, or in Kafka, whose client is imported only then."""

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from feature_repo.eventlog.contract import EventLog, EventTail, EventWriter, Holder
from feature_repo.eventlog.keys import StreamParams, kafka_topic, order
from feature_repo.eventlog.redis_reader import RedisLog, RedisTail
from feature_repo.eventlog.redis_writer import RedisWriter


def open_writer(redis: AsyncRedis, params: StreamParams, seen_ttl_s: int) -> EventWriter:
    """Writes to the log that `params` and the environment name."""
    if topic := kafka_topic(params):
        from feature_repo.eventlog.kafka_writer import KafkaWriter

        return KafkaWriter(redis, params, topic, seen_ttl_s)
    return RedisWriter(redis, params, seen_ttl_s)


def open_log(redis: Redis, params: StreamParams, group: str = "", holder: Holder | None = None) -> EventLog:
    """The shop's log; a reader also says for which group, and by which lease."""
    if topic := kafka_topic(params):
        from feature_repo.eventlog.kafka_reader import KafkaLog

        return KafkaLog(redis, params, group, topic)
    return RedisLog(redis, params, group, holder or Holder("", ""))


def open_tail(redis: Redis, params: StreamParams, since: str, limit: int) -> EventTail:
    """The log after the arrival that the stream id `since` names, about `limit` entries at a time."""
    if topic := kafka_topic(params):
        from feature_repo.eventlog.kafka_reader import KafkaTail

        return KafkaTail(topic, order(since)[0], limit)
    return RedisTail(redis, since, params.partitions, limit)
