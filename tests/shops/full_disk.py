"""A Redis on a file system of a few MiB, which fills while events come in, and is then killed.

    unshare -rm python tests/shops/full_disk.py FOLDER      prints what was accepted, refused and is there

Run in a mount namespace of its own, so that the small file system is real and goes with the process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from shops.service import free_port

from feature_repo.errors import UnavailableError
from feature_repo.eventlog.keys import StreamParams, stream_keys
from feature_repo.eventlog.open import open_writer
from feature_repo.online.connection import answers, client, of_requests
from feature_repo.params import load
from pipelines.local.stack import DURABLE, redis_server
from serving.http.ingress import Ingress
from serving.live.disk import Disk
from serving.params import Serving

DISK_MIB, FREE_MIB, BATCH, LOOK_EVERY = 12, 4, 20, 10
AT = 1_767_225_600_000_000


def redis(folder: Path, port: int, **options: Any) -> subprocess.Popen[bytes]:
    where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    server = subprocess.Popen([redis_server(), *where, *DURABLE], stdout=subprocess.DEVNULL, **options)
    deadline = time.monotonic() + 60
    while not answers(f"redis://127.0.0.1:{port}/0"):
        assert time.monotonic() < deadline and server.poll() is None
        time.sleep(0.02)
    return server


def batch(number: int) -> list[dict[str, Any]]:
    return [
        {"type": "product_viewed", "session_id": f"s{i}", "item_id": "mug", "event_id": f"{number}-{i}"}
        for i in range(BATCH)
    ]


def logged(url: str) -> list[str]:
    """Ids of the events that the log holds."""
    with client(url) as held:
        entries: Any = [one for key in stream_keys(4) for one in held.xrange(key)]
    return sorted(json.loads(fields[b"event"])["event_id"] for _, fields in entries)


async def pour(url: str, folder: Path | None, most: int, guarded: bool = True) -> tuple[list[str], str]:
    """Post until the door shuts, at most `most` batches; the accepted ids, and what the door said."""
    async with of_requests(url) as opened:
        params = load("serving", Serving)
        disk = Disk(opened, folder, FREE_MIB)
        writer = open_writer(opened, load("stream", StreamParams), params.seen_ttl_s)
        door = Ingress(opened, writer, params, disk if guarded else None)
        accepted: list[str] = []
        for number in range(most):
            if number % LOOK_EVERY == 0:  # as the task that looks once a second
                await disk.look()
            try:
                await door.accept(batch(number), door.clock(AT, AT))
            except UnavailableError as error:
                return sorted(accepted), str(error)
            accepted += [event["event_id"] for event in batch(number)]
        return sorted(accepted), ""


def main(folder: Path, guarded: bool) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "small", folder], check=True)
    port = free_port()
    server = redis(folder, port)
    accepted, told = asyncio.run(pour(f"redis://127.0.0.1:{port}/0", folder, 100_000, guarded))
    rest = folder / "of-another-program"
    with rest.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    server.kill()
    server.wait()
    rest.unlink()
    server = redis(folder, port)
    print(
        json.dumps(
            {
                "accepted": len(accepted),
                "told": told,
                "lost": [*set(accepted) - set(logged(f"redis://127.0.0.1:{port}/0"))],
            }
        )
    )
    server.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "guarded")
