"""The textbook stack beside ours: the same release, shoppers and Redis, in turn, in one run.

    python benchmarks/textbook.py --rate 100 --seconds 10        about two minutes

Theirs is what the parts' own pages show: a Bento API of a class, its default settings, that reads shopper and
visit and then 120 items by Feast's SDK, and asks the stock LightGBM booster. Its candidates are the 120 most
popular, which costs it nothing; it has no retrieval, filter, rule or diversity to pay for. Ours is a worker
of `endcap serve` with all of them. Both run in processes of their own, and are asked over HTTP by the clock;
requests a second per core are those of the processor time that the service took for them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import psutil
import uvloop
from budgets import tell
from load import Connections, Result, shortfall
from online import NOW, SHOPPERS, bare_redis, fill
from redis import Redis

from feature_repo.features.store import open_store
from feature_repo.online.changes import APPLIED_TS
from feature_repo.quiet import hush

PROJECT = Path(__file__).resolve().parents[1]
CANDIDATES, LIMIT, START_S = 120, 12, 180.0
TIMES = 10.0  # the budget: theirs over ours, p99
THEIRS = """
import os
from pathlib import Path
import bentoml, lightgbm, numpy as np, orjson
from feature_repo.features.store import open_store

@bentoml.service
class Textbook:
    def __init__(self):
        self.store = open_store(os.environ["REDIS_URL"])
        folder = Path(os.environ["TEXTBOOK_BUNDLE"])
        self.ids = orjson.loads((folder / "rails.json").read_bytes())["popular"][:120]
        self.booster = lightgbm.Booster(model_file=str(folder / "ranker.txt"))
        self.visitor, self.items = (self.store.get_feature_service(name) for name in ("visitor", "items"))

    @bentoml.api
    def recommend(self, user_id: str, session_id: str, limit: int = 12) -> dict:
        entity = [{"user_id": user_id, "session_id": session_id}]
        self.store.get_online_features(self.visitor, entity, full_feature_names=True).to_dict()
        rows = [{"item_id": item} for item in self.ids]
        read = self.store.get_online_features(self.items, rows, full_feature_names=True).to_dict()
        columns = [values for values in read.values() if isinstance(values[0], (int, float))]
        matrix = np.zeros((len(rows), self.booster.num_feature()))
        for at, values in enumerate(columns[: matrix.shape[1]]):
            matrix[:, at] = [np.nan if value is None else value for value in values]
        best = np.argsort(-self.booster.predict(matrix), kind="stable")[:limit]
        items = [{"item_id": self.ids[row], "slot": slot} for slot, row in enumerate(best.tolist())]
        return {"items": items, "degraded": None}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(command: list[str], port: int, env: dict[str, str], folder: Path) -> Iterator[psutil.Process]:
    """A service that is ready, and its process; stopped afterwards. Raises SystemExit with its log's end."""
    log = folder / f"{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | env, stdout=out, stderr=out)
    try:
        due = time.monotonic() + START_S
        while not ready(port):
            if process.poll() is not None or time.monotonic() > due:
                raise SystemExit(f"{' '.join(command)} is not ready:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        process.wait(timeout=30)


def ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as wire:
            wire.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b" 200 " in wire.recv(64)
    except OSError:
        return False


def processor_s(process: psutil.Process) -> float:
    """What the process and its children have taken."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family)


async def asked(port: int, path: str, rate: int, seconds: float) -> Result:
    """`rate` requests a second by the clock, a shopper each."""
    pool, result = Connections("127.0.0.1", port), Result(rate)

    async def one(due: float, shopper: int) -> None:
        body = {"user_id": f"U{shopper}", "session_id": f"S{shopper}", "limit": LIMIT}
        if path.startswith("/v1"):
            body["surface"] = "homepage_hero"
        try:
            status, answer = await pool.ask(path, orjson.dumps(body))
        except (OSError, asyncio.IncompleteReadError) as error:
            result.failed[type(error).__name__] += 1
            return
        if why := shortfall(status, answer, LIMIT):
            result.failed[why] += 1
        else:
            result.latency.append((time.perf_counter() - due) * 1000)

    started, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = started + number / rate
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(due, number % SHOPPERS)))
    await asyncio.gather(*tasks)
    result.seconds = time.perf_counter() - started
    pool.close()
    return result


def compare(bundle: Path, url: str, home: Path, rate: int, seconds: float, turns: int) -> None:
    """Both services up at once, asked in turn; prints each turn and the ratios of their medians."""
    ours, theirs = free_port(), free_port()
    (home / "textbook.py").write_text(THEIRS)
    path = f"{PROJECT}:{home}"
    env = {"REDIS_URL": url, "PYTHONPATH": path, "TEXTBOOK_BUNDLE": str(bundle), "ENDCAP_REPLAY": "1"}
    env |= {"ENDCAP_SERVICE_PORT": str(ours)}
    bento = [sys.executable, "-m", "bentoml", "serve", "textbook:Textbook", "--port", str(theirs)]
    mine = [sys.executable, "-m", "pipelines", "serve"]
    with serving(mine, ours, env, home) as one, serving(bento, theirs, env, home) as other:
        sides = {"Endcap": (one, ours, "/v1/recommend"), "textbook": (other, theirs, "/recommend")}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        print(f"{rate}/s for {seconds:g} s a turn          p50      p95      p99 ms   /s and core   failed")
        for turn in range(turns + 1):
            for name, (process, port, route) in sides.items():
                before = processor_s(process)
                result = uvloop.run(asked(port, route, rate, seconds if turn else 2.0))
                core = len(result.latency) / max(processor_s(process) - before, 1e-9)
                if not turn:
                    continue  # connections, caches
                found[name].append((result.quantile(0.99), core))
                cells = " ".join(f"{result.quantile(q):8.2f}" for q in (0.5, 0.95, 0.99))
                print(f"{name:<28}{cells} {core:13.0f}   {dict(result.failed) or 0}", flush=True)
    middle = {
        name: [sorted(column)[len(column) // 2] for column in zip(*rows, strict=True)]
        for name, rows in found.items()
    }
    (p99, core), (their_p99, their_core) = middle["Endcap"], middle["textbook"]
    tell(textbook_p99=their_p99 / p99, textbook_core=core / their_core)
    print(
        f"textbook over Endcap: p99 {their_p99 / p99:.1f} x (budget {TIMES:g} x); "
        f"Endcap over textbook: requests a second and core {core / their_core:.1f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    sys.path.insert(0, str(PROJECT / "tests"))
    from shops.tiny_bundle import make

    from serving.release import state
    from serving.release.state import Act, Release

    with bare_redis() as url:
        home = Path(os.environ["ENDCAP_HOME"])
        bundle = make(home, args.items, 300)
        redis = Redis.from_url(url)
        fill(redis, open_store(url).project, orjson.loads((bundle / "item_ids.json").read_bytes()))
        state.install(
            redis, Release(bundle.name, str(bundle.relative_to(home))), Act("benchmark", "to compare", NOW)
        )
        redis.set(APPLIED_TS, NOW)
        compare(bundle, url, home, args.rate, args.seconds, args.turns)


if __name__ == "__main__":
    hush()
    main()
