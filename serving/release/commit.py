"""A change of what Redis holds that is written only where nobody else has made one meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis, WatchError

from feature_repo.errors import EndcapError


@contextmanager
def commit(
    redis: Redis, key: str, same: Callable[[Any], bool], conflict: type[EndcapError], what: str
) -> Iterator[Any]:
    """A pipeline that reads `key` undisturbed; what is queued after its `multi()` is written at the end.

    `same`: whether what the pipeline reads is what the change was made from. Where it is not, or becomes
    another before the end, nothing is written and `conflict` is raised, naming `what` was tried.
    """
    with redis.pipeline() as pipe:
        try:
            pipe.watch(key)
            if not same(pipe):
                raise WatchError
            yield pipe
            pipe.execute()
        except WatchError:
            raise conflict(
                f"{key.removeprefix('endcap:')}: changed by somebody else while `{what}` was under way; "
                "look at it and try again"
            ) from None
