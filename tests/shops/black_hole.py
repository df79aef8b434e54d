"""A proxy before a port that can swallow every byte, as a cut cable does: no answer, no end, no error."""

from __future__ import annotations

import socket
import threading


class BlackHole:
    """Hands on to 127.0.0.1:`behind` until `swallow` is set; what was swallowed is gone for good."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self.swallow = threading.Event()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
                server = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                return
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._hand_on, args=(one, other), daemon=True).start()

    def _hand_on(self, one: socket.socket, other: socket.socket) -> None:
        lost = False
        try:
            while data := one.recv(1 << 16):
                lost = lost or self.swallow.is_set()
                if not lost:
                    other.sendall(data)
        except OSError:
            pass
        if not lost:
            other.close()

    def close(self) -> None:
        self._door.close()
