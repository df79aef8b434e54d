"""`endcap stream`: events of the log -> folds -> feature rows in Redis, each event exactly once.

    log, partitioned by visit      endcap:events:<p>
      -> tasks                     one per partition for visitors' rows, one for items' (worker.py)
      -> processes                 which share the tasks fairly (members.py, consumer.py)

Late and out-of-order events count like any other: a fold gives each the weight that its own instant has, and
an entity's row stands at its newest instant whatever came last. So the rows after a set of events do not
depend on when these arrived, up to the order of those that a fold keeps as a list and that are stamped alike.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Annotated

import typer

from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.open import open_log
from feature_repo.online.connection import answers, client, connect
from feature_repo.params import load
from feature_repo.ports import redis_url
from pipelines.stream.rewind import rewind

RESTART_S = 1.0  # before a process that died is started again
log = logging.getLogger("pipelines.stream.stream")


def main(
    until_empty: Annotated[
        bool, typer.Option(help="stop when every event is applied, instead of waiting")
    ] = False,
    processes: Annotated[
        int, typer.Option(help="consumers to start, and to start again when one dies", min=1)
    ] = 1,
    start: Annotated[
        str | None,
        typer.Option("--from", help="apply again from: beginning, an ISO instant, <partition>:<position>"),
    ] = None,
) -> None:
    """Keep the online features up to date with the event stream, until SIGTERM."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    for package in ("pipelines", "feature_repo.eventlog"):
        logging.getLogger(package).setLevel(logging.INFO)
    params = load("stream", StreamParams)
    answers(redis_url())  # raises for a Redis that no waiting helps
    with client() if start is None else connect() as redis:  # a Redis that is away is waited for below
        log_of_events = open_log(redis, params)
        with suppress(OSError):  # and so are brokers
            log_of_events.check()
        if start is not None:
            rewind(redis, log_of_events, start, params.keep_hours)
        log_of_events.close()
    if processes > 1:
        supervise(processes, until_empty)
        return
    from pipelines.stream.consumer import Consumer

    patience = 5 + params.block_ms / 1000
    opened = partial(client, socket_timeout=patience)
    joined = f"{time.time_ns() // 1_000_000:013d}"  # names of processes are in the order of joining
    name = f"{joined}-{socket.gethostname()}-{os.getpid()}"
    consumer = Consumer(opened, params, name)
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: consumer.stop())
    consumer.run(until_empty)


def supervise(count: int, until_empty: bool) -> None:
    """Keep `count` consumers running until SIGTERM, or until each has ended by itself."""
    command = [sys.executable, "-m", "pipelines", "stream", *(["--until-empty"] if until_empty else [])]
    children = [subprocess.Popen(command) for _ in range(count)]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, stop)
    while not stopping and any(child.poll() != 0 for child in children):
        time.sleep(RESTART_S)
        for i, child in enumerate(children):
            if child.poll() and not stopping:
                log.warning(
                    "consumer %d ended with status %d and is started again", child.pid, child.returncode
                )
                children[i] = subprocess.Popen(command)
    for child in children:
        child.terminate()
    for child in children:
        child.wait()
