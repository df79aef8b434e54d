"""A connection to a worker, with limits: how many, how long one may be silent, how long a request may take.

uvicorn's own protocol bounds none of this, and BentoML hands it no setting for it; `install` puts this one in
its place. A connection costs no timer: one look a second finds those whose time is over.
"""

import logging
import resource
import threading
import time
from dataclasses import dataclass
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import listener
from serving.errors import RequestError
from serving.params import Serving

LOOK_S = 1.0
DRAIN_S = 1.0  # a client that keeps its connection is told on its next request, if that comes so soon
READ_ON = 8  # times its limit, of a body that is refused: a client reads no answer while it sends
SPARE_FILES = 512  # of the process: Redis, the release, and what is accepted between two turns of the loop
EVICTED_SHARE = 16  # one in so many goes when there is no place left: sorting then costs little per newcomer
AGAIN_S = 60.0

ARRIVAL = "endcap.arrival"  # in a request's ASGI scope

DRAINING = threading.Event()  # the worker was told to end: what waits for something gives up

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Arrival:
    """When a request had arrived whole, on time.perf_counter's clock; None before."""

    at: float | None = None


def install(params: Serving, worker: int | None = None) -> None:
    """Every server that is made in this process after this uses Connection, with the limits in `params`.

    `worker`: its number among those that listen, from 1.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    Connection.params, Connection.tally = params, listener.install(worker)
    Connection.most = min(params.max_connections, max(files - SPARE_FILES, files // 2))
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"
    logging.getLogger("uvicorn.error").addFilter(Sampled())


class Sampled(logging.Filter):
    """Lets the same warning through once in AGAIN_S: anybody can cause one."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        text = str(record.msg)  # not yet filled in: few, whatever clients send
        if record.created - self._told.get(text, -AGAIN_S) < AGAIN_S:
            return False
        self._told[text] = record.created
        return True


class Connection(HttpToolsProtocol):
    """HTTP/1.1 of one client."""

    params: Serving
    tally: listener.Tally | None  # where other workers listen too
    most: int  # connections of the worker
    connections: set[Any]
    server_state: Any

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.ws_protocol_class = None  # nothing here speaks WebSocket, and its connections have no limits
        self._due: float | None = None  # when it is closed; None while an answer is owed
        self._receiving = self._in_head = False
        self._head = self._bytes = 0  # bytes of this request

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._due = self.loop.time() + self.params.idle_timeout_s
        if len(self.connections) > self.most:
            self._make_room()
        if not getattr(self.server_state, "looked_after", False):
            self.server_state.looked_after = True
            self.loop.call_later(LOOK_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.tally is not None:
            self.tally.say(len(self.connections))

    def data_received(self, data: bytes) -> None:
        most = self.params.max_header_bytes
        if len(data) <= most:
            self._feed(data)
            return
        for start in range(0, len(data), most):  # a head of many pieces is refused after the second
            if not self.transport.is_closing():
                self._feed(data[start : start + most])

    def _feed(self, piece: bytes) -> None:
        self._bytes += len(piece)
        super().data_received(piece)
        if self._in_head:
            self._head += len(piece)  # of a header that is not complete the parser says nothing
            if self._head > self.params.max_header_bytes:
                self._refuse_head()
        elif self._bytes > 2 * READ_ON * self.params.max_body_bytes:  # refused long ago, and still coming
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. True keeps the connection for the answers that are owed."""
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        if last is not None and not last.response_complete and not last.more_body:
            last.keep_alive = False
            return True
        if self._receiving and not self.pipeline:
            self.send_400_response("the request ended before it was complete")
        return False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._due = self.loop.time() + self.params.request_timeout_s
        self._receiving = self._in_head = True
        self._head = self._bytes = 0
        self._arrival = Arrival()
        self.scope[ARRIVAL] = self._arrival  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        self._in_head = False
        most = self.params.max_header_bytes  # all in one piece is less
        if len(self.headers) > self.params.max_headers or (self._head and self._head_size() > most):
            self._refuse_head()
            raise ValueError("too many or too long headers")  # the parser makes its own error of it
        super().on_headers_complete()
        if DRAINING.is_set():
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._receiving = False
        self._arrival.at = time.perf_counter()
        self._due = self.loop.time() + self.params.idle_timeout_s if self.cycle.response_complete else None

    def on_response_complete(self) -> None:
        """As uvicorn has it, but that no timer is set: _due is looked at."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._receiving:
            self._due = self.loop.time() + self.params.idle_timeout_s

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, as JSON like every refusal, and close."""
        self._refuse("400 Bad Request", RequestError("request", msg, "HTTP/1.1", next_step="send it again"))

    def shutdown(self) -> None:
        """The worker ends. Who may be about to send gets an answer with `Connection: close` first."""
        DRAINING.set()
        if self._is_idle():
            self.loop.call_later(DRAIN_S, self._close_if_idle)
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def _is_idle(self) -> bool:
        return not self._receiving and (self.cycle is None or self.cycle.response_complete)

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def _refuse(self, status: str, error: RequestError) -> None:
        if self.transport.is_closing():
            return
        body = error.body()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _refuse_head(self) -> None:
        allowed = f"{self.params.max_headers}, with the address {self.params.max_header_bytes} bytes"
        error = RequestError("headers", "more", allowed, next_step="send less")
        self._refuse("431 Request Header Fields Too Large", error)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _look(self) -> None:
        now = self.loop.time()
        late: list[Any] = [one for one in self.connections if one._due is not None and one._due < now]
        for one in late:
            one._end()
        if self.connections:
            self.loop.call_later(LOOK_S, self._look)
        else:
            self.server_state.looked_after = False

    def _end(self) -> None:
        """Its time is over: told, where a request had begun, and closed."""
        if self._receiving and (self.cycle is None or self.cycle.response_complete):
            allowed = f"one that is complete {self.params.request_timeout_s:g} s after its first byte"
            self._refuse(
                "408 Request Timeout", RequestError("request", "slower", allowed, next_step="try again")
            )
        self.transport.close()

    def _make_room(self) -> None:
        """Close those that have been silent longest; who is owed an answer stays."""
        waiting: list[Any] = [one for one in self.connections if one._due is not None and one is not self]
        waiting.sort(key=lambda one: (one._receiving, one._due))
        for one in waiting[: len(waiting) // EVICTED_SHARE + 1]:
            one.transport.close()
        self.logger.warning("too many connections: those that were silent longest are closed")
        if not waiting:
            head = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
            self.transport.write(head + b"content-length: 0\r\n\r\n")
            self.transport.close()
