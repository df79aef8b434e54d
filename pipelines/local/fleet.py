"""What the workers of the running service say, for `endcap status`."""

from dataclasses import asdict
from typing import Any

from redis import RedisError

from feature_repo.online.connection import ONCE, client
from serving.release import state, workers

ANSWER_S = 1.0


def fleet(url: str) -> tuple[dict[str, Any], list[str]] | None:
    """The row for machines and the lines for people; None where the Redis at `url` does not answer.

    The row's state is "ready" where every worker serves what Redis names.
    """
    try:
        with client(url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=ONCE) as redis:
            reports, wanted = workers.read(redis), state.read(redis)
    except RedisError:
        return None
    right = wanted is not None and bool(reports) and all(report.serves(wanted) for report in reports)
    row = {"name": "workers", "state": "ready" if right else "not ready"}
    return row | {"workers": [asdict(report) for report in reports]}, workers.summary(reports, wanted)
