"""A shop of its own for the length of a comparison: Redis, stream consumers and service, from the candidate.

They run in a temporary project folder, which shares the data and has its own run/, on free loopback ports,
and are stopped in any case. Nobody is in the holdout there, deadlines are long, and every answer is logged.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from redis import Redis

from feature_repo.features.store import open_store
from feature_repo.params import load, root, shop
from pipelines.local import stack
from pipelines.local.ports import HOST, embedded_redis_url, service_url
from pipelines.stream.materialize import MaterializeParams, materialize
from serving.release import bundle, state
from serving.release.state import Act, Release

CANDIDATE = "data/bundles/candidate"
PORTS = ("ENDCAP_REDIS_PORT", "ENDCAP_SERVICE_PORT", "ENDCAP_CONSOLE_PORT")
PROCESSES = ("redis", "stream", "service")
CHANGED: dict[str, dict[str, Any]] = {  # of params.yaml, in this shop
    "router": {"holdout_share": 0.0},
    "serving": {"workers": 1, "feature_deadline_ms": 900, "served_share": 1.0, "served_kept": 100_000},
}


@contextmanager
def standalone() -> Iterator[str]:
    """URL of a service that answers by the candidate, with features as of the start of the test span.

    ENDCAP_HOME, REDIS_URL and the ports of the environment are those of this shop until it is stopped.
    Raises StackError for a process that does not start, BundleError for a candidate that cannot be served.
    """
    before, handler = dict(os.environ), signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="endcap-replay-") as folder:
        try:
            _enter(Path(folder))
            stack.bring_up(("redis",))
            url = os.environ["REDIS_URL"]
            digest = bundle.verify(root() / CANDIDATE)["digest"]
            with Redis.from_url(url) as redis:
                act = Act("replay", "endcap replay --standalone", time.time_ns() // 1000)
                state.install(redis, Release(digest, CANDIDATE), act)
                chunk = load("materialize", MaterializeParams).chunk_rows
                materialize(redis, open_store(url), shop().test_from, chunk, fresh=False)
            stack.bring_up(PROCESSES)
            yield service_url()
        finally:
            stack.take_down()
            os.environ.clear()
            os.environ.update(before)
            signal.signal(signal.SIGTERM, handler)


def _enter(home: Path) -> None:
    """Make `home` a project folder of the active shop, and the environment that of its processes."""
    params = yaml.safe_load((root() / "params.yaml").read_text())
    for section, values in CHANGED.items():
        params[section] |= values
    (home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (home / "data").symlink_to((root() / "data").resolve())
    os.environ["ENDCAP_HOME"] = str(home)
    os.environ["ENDCAP_REPLAY"] = "1"
    os.environ |= dict(zip(PORTS, map(str, _free_ports(len(PORTS))), strict=True))
    os.environ["REDIS_URL"] = embedded_redis_url()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((HOST, 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _end(*_: object) -> None:
    sys.exit(143)
