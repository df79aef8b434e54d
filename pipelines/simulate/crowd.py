"""Live shoppers: people of the simulated world who use the HTTP endpoint and click by its truth.

They see only what a browser sees. Their tastes stay in the world, so a release that ranks better gets more
clicks, and one that ranks worse gets fewer: that is what a canary is judged on.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import httpx
import numpy as np

from feature_repo import params
from feature_repo.ports import SECRET, authorization
from pipelines.simulate.observed import Observed
from pipelines.simulate.shopper import Manners, Shopper
from pipelines.simulate.world import World


def drive(
    url: str,
    world: World,
    rng: np.random.Generator,
    *,
    shoppers: int,
    start: datetime,
    manners: Manners | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> Observed:
    """Send `shoppers` people to the endpoint at `url`, and return when the last has left.

    start        simulated instant at which the first arrives (aware)
    manners      None: section `shoppers` of params.yaml
    on_progress  called with 1 after each shopper

    What a shopper does depends on `rng` and on the answers, not on the order in which answers come. A failed
    call ends that shopper's visit and is counted; nothing is raised.
    """
    habits = manners or params.load("shoppers", Manners)
    gap, workers = timedelta(seconds=habits.seconds_between), habits.concurrency
    run = f"{rng.integers(1 << 32):08x}"  # two runs with the same start must not share event ids
    arrivals = iter(enumerate(rng.spawn(shoppers)))

    seen = Observed()

    async def serve_queue(client: httpx.AsyncClient) -> None:
        for number, dice in arrivals:
            await Shopper(client, world, dice, f"v{run}-{number}", start + number * gap, habits, seen).run()
            seen.shoppers += 1
            if on_progress is not None:
                on_progress(1)

    async def open_doors() -> None:
        limits = httpx.Limits(max_connections=workers, max_keepalive_connections=workers)
        async with httpx.AsyncClient(
            base_url=url,
            timeout=habits.timeout_s,
            limits=limits,
            trust_env=False,
            headers=authorization(SECRET),
        ) as client:
            await asyncio.gather(*(serve_queue(client) for _ in range(workers)))

    asyncio.run(open_doors())
    return seen
