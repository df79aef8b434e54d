"""deploy/edge/endcap.conf in a real nginx, on free ports, in front of any service."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from shops.service import free_port

CONF = Path(__file__).resolve().parents[2] / "deploy/edge/endcap.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@dataclass
class Edge:
    """`url` is the edge; `conf` what it was told, with the ports of here."""

    url: str
    conf: Path
    command: list[str]

    def reload(self) -> None:
        """What the file says now holds for every request that comes after."""
        subprocess.run([*self.command, "-s", "reload"], check=True, timeout=10)
        time.sleep(0.5)  # workers of before end with their requests


@contextmanager
def edge(folder: Path, service_url: str) -> Iterator[Edge]:
    """nginx in the foreground, its files under `folder`."""
    assert NGINX
    folder.chmod(0o755)
    text, port = CONF.read_text(), free_port()
    for asked, given in (
        ("127.0.0.1:3000", service_url.removeprefix("http://")),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("127.0.0.1:8081", f"127.0.0.1:{free_port()}"),
        ("/var/cache/nginx/endcap", str(folder / "kept")),
    ):
        assert asked in text
        text = text.replace(asked, given)
    (folder / "endcap.conf").write_text(text)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log {folder}/error.log; daemon off; worker_processes 1;"
        f"{'user root;' if Path(folder).owner() == 'root' else ''}"
        f"events {{ }} http {{ access_log off; {temporary} include {folder}/endcap.conf; }}"
    )
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=20)
    assert tried.returncode == 0 and not re.search(r"\[(warn|emerg)\]", tried.stderr), tried.stderr
    process = subprocess.Popen(command)
    try:
        found = Edge(f"http://127.0.0.1:{port}", folder / "endcap.conf", command)
        for _ in range(100):
            try:
                httpx.get(f"{found.url}/metrics", timeout=1)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield found
    finally:
        process.terminate()
        process.wait(10)
