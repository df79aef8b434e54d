"""Opens Redis: where it is, how long it may take, and what is said where it does not answer.

Nobody else makes a client, so that none waits for ever: a connection that swallows what is sent, as after a
cut cable, answers nothing and is never closed. Where the URL names sentinels, each new connection asks them
for the primary; nothing is tried twice then, for redis-py's second try goes to the address of the first.
"""

from typing import Any

from redis import Redis, RedisError
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from feature_repo.errors import ParamsError, UnavailableError
from feature_repo.ports import redis_url, sentinels, without_password

CONNECT_S = 2.0
ONCE = Retry(NoBackoff(), 0)  # no second try
QUICK_S = 2.0  # in the service, where others wait
ANSWER_S = 60.0  # to one command; the largest, a script over a batch of rows, takes well under a second


class _Asked(AsyncSentinel):
    """The sentinels of the event loop."""

    async def discover_master(self, service_name: str) -> Any:
        """As redis-py's; who kept a request waiting until it gave up is asked last."""
        try:
            return await super().discover_master(service_name)
        except BaseException:
            self.sentinels.append(self.sentinels.pop(0))
            raise


def client(url: str | None = None, **options: Any) -> Redis:
    """A client of the Redis at `url` (default: redis_url()) that connects when it is first used.

    `options` are redis-py's; the timeouts above hold where they say nothing.
    """
    url = url or redis_url()
    timeouts = {"socket_connect_timeout": CONNECT_S, "socket_timeout": ANSWER_S}
    if not (named := sentinels(url)):
        return Redis.from_url(url, **timeouts | options)
    limits = {"socket_connect_timeout": CONNECT_S, "socket_timeout": CONNECT_S, "retry": ONCE}
    asked = Sentinel(named.hosts, sentinel_kwargs=named.sentinel | limits)
    told = timeouts | options | {"retry": ONCE}
    return Redis.from_pool(SentinelConnectionPool(named.name, asked, **named.redis, **told))


def beside_requests(url: str) -> Redis:
    """A client of the service's threads: its answer is late after QUICK_S, and nothing is tried twice."""
    return client(url, retry=ONCE, socket_timeout=QUICK_S)


def of_requests(url: str) -> AsyncRedis:
    """A client of the service's event loop. Its deadlines are shorter; this one ends what they gave up."""
    return AsyncRedis(connection_pool=wires(url, socket_timeout=QUICK_S))


def wires(url: str, **options: Any) -> AsyncConnectionPool:
    """What makes connections of the event loop; a `socket_timeout` costs a task per command."""
    once = AsyncRetry(NoBackoff(), 0)
    options = {"retry": once, "socket_connect_timeout": QUICK_S, **options}
    if not (named := sentinels(url)):
        return AsyncConnectionPool.from_url(url, **options)
    limits = {"socket_connect_timeout": QUICK_S, "socket_timeout": QUICK_S, "retry": once}
    asked = _Asked(named.hosts, sentinel_kwargs=named.sentinel | limits)
    return AsyncSentinelConnectionPool(named.name, asked, **named.redis, **options)


def connect(url: str | None = None) -> Redis:
    """A client of a Redis that has just answered. Raises UnavailableError where none does, as `answers`."""
    url = url or redis_url()
    if not answers(url):
        raise unavailable(url)
    return client(url)


def answers(url: str) -> bool:
    """PING, without a second try. Raises ParamsError for a node of a Redis Cluster."""
    try:
        with client(url, socket_timeout=CONNECT_S, retry=ONCE) as redis:
            clustered = redis.ping() and redis.info("cluster").get("cluster_enabled")
    except RedisError:
        return False
    if clustered:
        raise ParamsError(
            f"REDIS_URL: {without_password(url)} is a node of a Redis Cluster; allowed: one Redis, or "
            "sentinels over a primary and its replicas. Next: docs/replicas.md"
        )
    return True


def unavailable(url: str | None = None) -> UnavailableError:
    """What is said of a Redis that is away; its password is not."""
    url = url or redis_url()
    step = "start it with `endcap up`"
    if named := sentinels(url):
        (host, port), *_ = named.hosts
        step = f"ask one: `redis-cli -h {host} -p {port} sentinel get-master-addr-by-name {named.name}`"
    return UnavailableError(f"REDIS_URL: {without_password(url)} does not answer", next_step=step)
