"""A proxy before a port that is slow on purpose: each answer comes late, or stops in its middle."""

from __future__ import annotations

import socket
import threading
import time


class SlowWire:
    """Hands on to 127.0.0.1:`behind`; answers take `delay_s` longer, and with `choke` set end half-way."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self.delay_s = 0.0
        self.choke = threading.Event()
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
            threading.Thread(target=self._there, args=(client, server), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _there(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(1 << 16):
                server.sendall(data)
        except OSError:
            pass
        server.close()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        choked = False
        try:
            while data := server.recv(1 << 16):
                time.sleep(self.delay_s)
                if choked:
                    continue  # what is behind a hole in the middle would be read as something else
                choked = self.choke.is_set()
                client.sendall(data[: len(data) // 2] if choked else data)
        except OSError:
            pass
        client.close()

    def close(self) -> None:
        self._door.close()
