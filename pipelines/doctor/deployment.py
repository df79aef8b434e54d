"""`endcap doctor` without DATA: the deployment that runs, whatever of it is away; nothing is changed."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict

from redis import Redis, RedisError

from feature_repo.errors import EndcapError
from feature_repo.online.connection import ONCE, client
from feature_repo.ports import redis_url
from pipelines.doctor import footing, reach, redis_server
from pipelines.doctor.finding import MUST, OK, WARN, Finding

ANSWER_S = 2.0
Look = Callable[[Redis], Iterable[Finding]]
# In the order of the report; the second asks Redis, so it says nothing where that is away.
LOOKS: tuple[tuple[Look, bool], ...] = (
    (footing.code, False),
    (redis_server.version, True),
    (redis_server.clock, True),
    (redis_server.persistence, True),
    (footing.releases, True),
    (footing.service_ages, False),
    (footing.shop_ages, True),
    (footing.holdout, False),
    (footing.canary, True),
    (footing.partitions, True),
    (footing.disks, False),
    (reach.secrets, False),
    (reach.signing, True),
    (reach.way, True),
    (reach.ports, False),
    (footing.edge, False),
)


def findings() -> list[Finding]:
    """All looks. One that meets what it cannot read is a finding, too."""
    with client(redis_url(), socket_timeout=ANSWER_S, retry=ONCE) as redis:
        away = redis_server.away(redis)
        found = [away] if away else []
        for look, asks_redis in LOOKS:
            if away and asks_redis:
                continue
            try:
                found += look(redis)
            except (RedisError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                told = f"cannot be read ({type(error).__name__}: {error})"
                found.append(Finding(look.__name__, MUST, told, next="mend it, and look again"))
    return found


def report(as_json: bool) -> None:
    """Prints them. Raises EndcapError where something must be mended."""
    found = findings()
    count = Counter(finding.state for finding in found)
    print(json.dumps([asdict(one) for one in found]) if as_json else "\n".join(one.line() for one in found))
    if count[MUST]:
        raise EndcapError(f"{count[MUST]} of {len(found)} findings must be mended; each line says how")
    if not as_json:
        print(f"{count[OK]} are right, {count[WARN]} can wait, nothing must be mended")
