"""`endcap rails`: lists for the moments in which none can be made, kept in Redis (serving/rails/rail.py).

For every shopper, or visit without one, who was shown a list within `rails.seen_hours`; for pairs of device
and country; for categories. Whose rail holds all that is known already, and is young, keeps it.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from redis import Redis, RedisError

from feature_repo.errors import EndcapError
from feature_repo.online.connection import answers, client, connect
from feature_repo.params import load
from feature_repo.ports import redis_url
from feature_repo.terminal import progress
from pipelines.rails.audience import lately
from pipelines.rails.maker import Maker
from serving.rails.rail import RailParams, beat, key_of
from serving.release import state

LOOK_S = 2.0  # between two looks for another champion
NICE = 10  # requests come first
WEIGHED = 50  # rails whose bytes in Redis are looked at

log = logging.getLogger("pipelines.rails.rails")


def main(
    watch: Annotated[bool, typer.Option(help="make them again and again, until SIGTERM")] = False,
) -> None:
    """Make lists beforehand for shoppers seen lately, cohorts and categories."""
    params = load("rails", RailParams)
    if not watch:
        with connect() as redis:
            print(made(redis, Maker(redis, params), params, lambda: beat(redis)))
        return
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("pipelines").setLevel(logging.INFO)
    stopping = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stopping.set())
    os.nice(NICE)
    answers(redis_url())  # raises for a Redis that no waiting helps
    with client() as redis:
        run(redis, params, stopping)


def run(redis: Redis, params: RailParams, stopping: threading.Event) -> None:
    """A round every `rails.every_s`, and at once for a new champion; a Redis that is away is waited for."""
    maker: Maker | None = None
    due, works = 0.0, True
    while not stopping.is_set():
        try:
            beat(redis)
            champion = state.present(redis).champion.digest
            if maker is None or maker.release.digest != champion:
                maker, due = Maker(redis, params), 0.0
            if time.monotonic() >= due:
                log.info(made(redis, maker, params, lambda: _on(redis, stopping)))
                due = time.monotonic() + params.every_s
            works = True
        except InterruptedError:
            return
        except (RedisError, OSError, EndcapError) as error:
            if works:
                log.warning("waiting: %s: %s", type(error).__name__, error)
            works = False
        stopping.wait(LOOK_S)


def made(redis: Redis, maker: Maker, params: RailParams, onwards: Callable[[], None]) -> str:
    """One round, told in a line; `onwards` is called again and again, and may end it by an error."""
    began = time.monotonic()
    maker.refresh()
    onwards()
    shared = maker.shared()  # first: they are of use to everybody
    found = list(lately(redis, time.time_ns() // 1000, params).items())
    fresh, sample = 0, list[str]()
    with progress(total=len(found), desc="rails", unit=" shoppers") as bar:
        for at, size in enumerate(maker.shoppers(found)):
            bar.update()
            fresh += size > 0
            if size and len(sample) < WEIGHED:
                sample.append(key_of(found[at][0]))
            if at % 50 == 49:
                onwards()
            if bar.disable and (at + 1) * 4 // len(found) > at * 4 // len(found):
                print(f"rails: {at + 1:,} of {len(found):,} shoppers", flush=True)
    weighed: list[Any] = [redis.memory_usage(key) or 0 for key in sample]
    told = f", {sum(weighed) // len(weighed):,} bytes each in Redis" if weighed else ""
    cohorts = sum(map(len, shared.cohorts.values()))
    return (
        f"rails of {len(found):,} shoppers ({fresh:,} made anew{told}), {cohorts:,} of cohorts, "
        f"{len(shared.categories):,} of categories, by {maker.release.digest}, "
        f"in {time.monotonic() - began:.1f} s"
    )


def _on(redis: Redis, stopping: threading.Event) -> None:
    if stopping.is_set():
        raise InterruptedError
    beat(redis)
