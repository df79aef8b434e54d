"""Starts the workers and watches over them: BentoML's arbiter, with two changes.

Its control sockets, which run any command for whoever reaches them, are files in a folder of their owner's,
not ports of the machine. And it ends in order: newcomers are turned away first, then the workers are told.
"""

import ctypes
import os
import shutil
import socket
import struct
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from serving.lifeline import SUPERVISOR
from serving.listener import TALLY, Tally
from serving.params import Serving

SERVICE = "serving.service:Endcap"
RETRY_S = 0.1
CHECK_S = 1.0  # between two looks for a worker that died; BentoML takes 10 s
KILL_S = 2.0  # a worker that has not ended so long after its time to drain is killed
ACCEPT_S = 0.2  # for workers to take those who had connected before newcomers were turned away
SO_ATTACH_FILTER = 26
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one BPF instruction: return 0, keep nothing of the packet


def serve(host: str, port: int, params: Serving) -> None:
    """Until SIGTERM or SIGINT. The environment says where Redis is and where BentoML keeps its files."""
    from _bentoml_impl.loader import load
    from _bentoml_impl.server import serve_http
    from bentoml._internal.log import configure_server_logging
    from bentoml._internal.utils import circus

    os.environ[SUPERVISOR] = str(os.getpid())
    folder = Path(tempfile.mkdtemp(prefix="endcap-"))  # mode 0700
    os.environ.pop(TALLY, None)
    if params.workers > 1:
        os.environ[TALLY] = str(folder / "connections")
        Tally.make(folder / "connections", params.workers)
    configure_server_logging()
    # serve_http takes it from there
    circus.create_standalone_arbiter = partial(_arbiter, params.drain_timeout_s, folder)
    load(SERVICE, ".").inject_config()
    serve_http(
        SERVICE,
        working_dir=".",
        host=host,
        port=port,
        backlog=params.backlog,
        timeout_keep_alive=max(1, round(params.idle_timeout_s)),
        timeout_graceful_shutdown=max(1, round(params.drain_timeout_s)),
    )


def _arbiter(
    drain_s: float, folder: Path, watchers: list[Any], *, threaded: bool = False, **options: Any
) -> Any:
    """As BentoML's create_standalone_arbiter, on sockets that only their owner can open."""
    from bentoml._internal.utils.circus import Arbiter

    class PoliteArbiter(Arbiter):
        def stop(self) -> Any:
            if self._exclusive_running_command is not None:  # it would refuse, and the signal would be lost
                return self.loop.call_later(RETRY_S, self.stop)
            for listening in self.sockets.values():
                turn_away(listening)
            time.sleep(ACCEPT_S)
            return super().stop()

    for watcher in watchers:
        watcher.graceful_timeout = drain_s + KILL_S  # BentoML waits a day
    arbiter = PoliteArbiter(
        watchers,
        endpoint=f"ipc://{folder}/control",
        pubsub_endpoint=f"ipc://{folder}/events",
        check_delay=CHECK_S,
        **options,
    )
    arbiter.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return arbiter


def turn_away(listening: socket.socket) -> None:
    """Let no new connection into a listening socket; who is in its queue already can still be accepted.

    Closing it instead would reset those. Where the kernel has no packet filters nothing changes.
    """
    program = ctypes.create_string_buffer(DROP_ALL)
    with suppress(OSError):
        fields = struct.pack("HP", 1, ctypes.addressof(program))
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fields)
