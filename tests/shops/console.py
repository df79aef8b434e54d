"""The console over HTTP, for a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from shops.service import free_port
from starlette.applications import Starlette

STARTS_S = 10


@contextmanager
def running_console(app: Starlette) -> Iterator[str]:
    """Its address, once it answers: a browser that came too early would show a page of its own."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", http="httptools"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + STARTS_S
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the console does not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=STARTS_S)
