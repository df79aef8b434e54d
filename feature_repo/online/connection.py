"""Opens Redis: where it is, how long it may take, and what is said where it does not answer.

Nobody else makes a client, so that none waits for ever: a connection that swallows what is sent, as after a
cut cable, answers nothing and is never closed.
"""

from typing import Any

from redis import Redis, RedisError
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_repo.errors import UnavailableError
from feature_repo.ports import redis_url, without_password

CONNECT_S = 2.0
ONCE = Retry(NoBackoff(), 0)  # no second try
QUICK_S = 2.0  # in the service, where others wait
ANSWER_S = 60.0  # to one command; the largest, a script over a batch of rows, takes well under a second


def client(url: str | None = None, **options: Any) -> Redis:
    """A client of the Redis at `url` (default: redis_url()) that connects when it is first used.

    `options` are redis-py's; the timeouts above hold where they say nothing.
    """
    timeouts = {"socket_connect_timeout": CONNECT_S, "socket_timeout": ANSWER_S}
    return Redis.from_url(url or redis_url(), **timeouts | options)


def beside_requests(url: str) -> Redis:
    """A client of the service's threads: its answer is late after QUICK_S, and nothing is tried twice."""
    return client(url, retry=ONCE, socket_timeout=QUICK_S)


def of_requests(url: str) -> AsyncRedis:
    """A client of the service's event loop. Its deadlines are shorter; this one ends what they gave up."""
    return AsyncRedis(connection_pool=wires(url, socket_timeout=QUICK_S))


def wires(url: str, **options: Any) -> AsyncConnectionPool:
    """What makes connections of the event loop; a `socket_timeout` costs a task per command."""
    options = {"retry": AsyncRetry(NoBackoff(), 0), "socket_connect_timeout": QUICK_S, **options}
    return AsyncConnectionPool.from_url(url, **options)


def connect(url: str | None = None) -> Redis:
    """A client of a Redis that has just answered. Raises UnavailableError where none does."""
    url = url or redis_url()
    if not answers(url):
        raise unavailable(url)
    return client(url)


def answers(url: str) -> bool:
    """PING, without a second try."""
    try:
        with client(url, socket_timeout=CONNECT_S, retry=ONCE) as redis:
            return bool(redis.ping())
    except RedisError:
        return False


def unavailable(url: str | None = None) -> UnavailableError:
    """What is said of a Redis that is away; its password is not."""
    address = without_password(url or redis_url())
    return UnavailableError(f"REDIS_URL: {address} does not answer", next_step="start it with `endcap up`")
