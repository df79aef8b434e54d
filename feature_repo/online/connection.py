"""Opens Redis for jobs: where it is, how long it may take, and what is said where it does not answer.

The service's own clients, which may not wait within a request, take the address from feature_repo.ports too.
"""

from typing import Any

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_repo.errors import UnavailableError
from feature_repo.ports import redis_url, without_password

CONNECT_S = 2.0
ONCE = Retry(NoBackoff(), 0)  # no second try
ANSWER_S = 60.0  # to one command; the largest, a script over a batch of rows, takes well under a second


def client(url: str | None = None, **options: Any) -> Redis:
    """A client of the Redis at `url` (default: redis_url()) that connects when it is first used.

    `options` are redis-py's; the timeouts above hold where they say nothing.
    """
    timeouts = {"socket_connect_timeout": CONNECT_S, "socket_timeout": ANSWER_S}
    return Redis.from_url(url or redis_url(), **timeouts | options)


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
