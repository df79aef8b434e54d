"""Which worker takes a new connection: the one that has fewest, where several listen on one socket.

The kernel wakes whoever waited last, and asyncio then takes all that queue up: eight connections that a
balancer opens at once were one worker's, and the others idled beside it. Here a worker lets one with fewer
connections go first: all write how many they have into a file that each maps (ENDCAP_TALLY, made by the
supervisor). Who does not come within PATIENCE_S, dead or busy, is not waited for. A worker that listens alone
keeps asyncio's own way.
"""

import asyncio
import logging
import mmap
import os
import struct
from collections.abc import Callable, Sized
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn

TALLY = "ENDCAP_TALLY"
SLOT = struct.Struct("II")  # process id, connections; 0 is nobody
SLACK = 8  # one in so many more than another's is even enough, so that who is busy need not wait
PATIENCE_S, LOOK_S, PAUSE_S = 0.003, 0.001, 1.0  # the last one after an error such as no file left

log = logging.getLogger(__name__)


class Tally:
    """How many connections each of `slots` workers has; `own` is the slot of this one, from 0."""

    def __init__(self, file: Path, own: int) -> None:
        with file.open("r+b") as opened:
            self._held = mmap.mmap(opened.fileno(), 0)
        self._own = own * SLOT.size

    @staticmethod
    def make(file: Path, workers: int) -> None:
        """Ids of workers that are started again may be twice as many as run."""
        file.write_bytes(bytes(SLOT.size * (2 * workers + 1)))

    def say(self, count: int) -> None:
        SLOT.pack_into(self._held, self._own, os.getpid(), count)

    def fewer(self, count: int) -> bool:
        """Whether a worker that lives has fewer than `count`.

        >>> Tally(file, own=0).fewer(3)  # the others have 2 and 5
        True
        """
        own, slots = self._own // SLOT.size, enumerate(SLOT.iter_unpack(self._held[:]))
        others = (pid for at, (pid, many) in slots if pid and at != own and many < count)
        return any(map(_lives, others))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


class Listener:
    """A socket that listens, as uvicorn holds its servers; `make` makes the protocol of a connection."""

    def __init__(self, sock: socket, make: Callable[[], Any], open_ones: Sized, tally: Tally) -> None:
        self._sock, self._make, self._open, self._tally = sock, make, open_ones, tally
        self._loop = asyncio.get_running_loop()
        self._patient_since: float | None = None
        self._under_way: set[asyncio.Task[Any]] = set()
        self._again: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        tally.say(0)
        self._loop.add_reader(sock, self._knock)

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._sock)

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _look_away(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._again = self._loop.call_later(seconds, self._back)

    def _back(self) -> None:
        """Who knocked may have been let in by another: then the accept says so, and patience begins anew."""
        self._loop.add_reader(self._sock, self._knock)
        self._knock()

    def _knock(self) -> None:
        while True:
            count = len(self._open) + len(self._under_way)
            if self._tally.fewer(count - count // SLACK) and self._is_patient():
                self._look_away(LOOK_S)
                return
            self._patient_since = None
            try:
                wire, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker took it, or it is gone
            except OSError as error:
                log.warning("no connection is taken for %g s: %s", PAUSE_S, error)
                self._look_away(PAUSE_S)
                return
            self._tally.say(count + 1)
            wire.setblocking(False)
            task = self._loop.create_task(self._begin(wire))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def _is_patient(self) -> bool:  # from the first knock of who waits at the door
        now = self._loop.time()
        if self._patient_since is None:
            self._patient_since = now
        return now - self._patient_since < PATIENCE_S

    async def _begin(self, wire: socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, wire)
        except OSError:
            wire.close()


class Server(uvicorn.Server):
    """uvicorn's, whose workers share newcomers evenly."""

    tally: Tally

    async def startup(self, sockets: list[socket] | None = None) -> None:
        if not sockets or self.config.ssl:
            await super().startup(sockets)
            return
        await super().startup([])
        named = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        make: Callable[..., Any] = self.config.http_protocol_class
        loop, open_ones = asyncio.get_running_loop(), self.server_state.connections
        for sock in sockets:
            sock.listen(self.config.backlog)
            listener: Any = Listener(sock, lambda: make(**named, _loop=loop), open_ones, self.tally)
            self.servers.append(listener)


def install(worker: int | None) -> Tally | None:
    """Every server of this process shares its newcomers, where there is a tally; `worker` counts from 1."""
    if worker is None or not (file := os.environ.get(TALLY)):
        return None
    Server.tally = Tally(Path(file), worker - 1)
    uvicorn.Server = Server  # type: ignore[misc]
    return Server.tally
