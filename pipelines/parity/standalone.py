"""A shop of its own for the length of a comparison: Redis, stream consumers and service, from the candidate.

They run in a temporary project folder, which shares the data and has its own run/ and logs, on free loopback
ports, and are stopped in any case. Nobody is in the holdout there, deadlines are long, and every answer is
logged.
"""

import os
import shutil
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

from feature_repo.features.store import open_store
from feature_repo.online.connection import connect
from feature_repo.params import home, load, root, shop
from feature_repo.persons import privacy
from feature_repo.places import CANDIDATE, DATA, ITEM_LOG, at
from feature_repo.ports import HOST, PORTS, embedded_redis_url, service_url, variable
from pipelines.local import stack
from pipelines.stream.materialize import MaterializeParams, materialize
from serving.release import bundle, state
from serving.release.state import Act, Release

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
    ports = dict(zip(map(variable, PORTS), map(str, _free_ports(len(PORTS))), strict=True))
    with tempfile.TemporaryDirectory(prefix="endcap-replay-") as folder:
        _make(Path(folder))
        key = {privacy.VARIABLE: privacy.key()}  # it posts the pseudonyms of the data
        with home(Path(folder), ENDCAP_REPLAY="1", **key, **ports):
            os.environ["REDIS_URL"] = embedded_redis_url()
            handler = signal.signal(signal.SIGTERM, _end)
            try:
                stack.bring_up(("redis",))
                _release()
                stack.bring_up(PROCESSES)
                yield service_url()
            finally:
                stack.take_down()
                signal.signal(signal.SIGTERM, handler)


def _make(home: Path) -> None:
    """Make `home` a project folder of the active shop."""
    params = yaml.safe_load((root() / "params.yaml").read_text())
    for section, values in CHANGED.items():
        params[section] |= values
    (home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (home / ITEM_LOG).parent.mkdir(parents=True)
    for child in at(DATA).iterdir():
        if child.name != ITEM_LOG.parent.name:
            (home / DATA / child.name).symlink_to(child)
    if at(ITEM_LOG).exists():  # its consumers write down what it is told again
        shutil.copytree(at(ITEM_LOG), home / ITEM_LOG)


def _release() -> None:
    """Let the candidate be the champion, with features as of the start of the test span."""
    digest = bundle.verify(at(CANDIDATE))["digest"]
    with connect() as redis:
        act = Act("replay", "endcap replay --standalone", time.time_ns() // 1000)
        state.install(redis, Release(digest, str(CANDIDATE)), act)
        chunk = load("materialize", MaterializeParams).chunk_rows
        materialize(redis, open_store(), shop().test_from, chunk, fresh=False, replayed=True)


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
