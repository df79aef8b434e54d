"""A shop with a canary on trial: shoppers whose clicks are drawn, on the streams of a real Redis."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import orjson
from redis import Redis

from feature_repo.clock import DAY_US
from feature_repo.eventlog.keys import partition_of
from feature_repo.eventlog.lua import append
from feature_repo.params import load
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams, Step
from pipelines.release import rollout
from serving.release import state as control
from serving.release.router import assign
from serving.release.state import Act, Release, RolloutState

OLD, NEW = (Release(name, f"data/bundles/{name}") for name in ("old", "new"))
NOON = 20_000 * DAY_US + DAY_US // 2
ACT = Act("alice", "test", NOON)
PARAMS = replace(
    load("rollout", RolloutParams),
    steps=(Step(10, 300), Step(50, 300), Step(100, 100)),
)
FEEDBACK = load("feedback", FeedbackParams)


class Shop:
    """Shoppers of whatever Redis says serves: each sees two lists of 12 and clicks with her arm's CTR."""

    def __init__(self, redis: Redis, ctr: dict[str, float], seed: int = 1) -> None:
        self.redis, self.ctr = redis, ctr
        self.rng, self.ids = np.random.default_rng(seed), count()
        self.came, self.clicked = Counter[str](), Counter[str]()  # by arm

    def open(self, shoppers: int) -> None:
        """Serve `shoppers` new shoppers; exposures and clicks go to the streams."""
        state = control.read(self.redis)
        assert state is not None
        pipe = self.redis.pipeline(transaction=False)
        for number in (next(self.ids) for _ in range(shoppers)):
            unit = f"shopper-{number}"
            arm = assign(unit, state.salt, 0.02, state.percent)
            self.came[arm] += 1
            for visit in range(2):
                request, items = f"{unit}-{visit}", [f"item-{i}" for i in range(12)]
                record: dict[str, Any] = {"request_id": request, "ts": NOON, "unit": unit, "session_id": unit}
                record |= {"arm": arm, "bundle": "b", "surface": "pdp_fbt", "items": items}
                record["version"] = state.version
                pipe.xadd("endcap:exposures", {"exposure": orjson.dumps(record)})
                for item in np.flatnonzero(self.rng.random(12) < self.ctr.get(arm, 0.05)):
                    click = {"event_id": f"{request}-{item}", "type": "click", "event_ts": NOON + 1}
                    self.clicked[arm] += 1
                    click |= {"item_id": items[item], "request_id": request, "session_id": unit}
                    append(pipe, partition_of(unit, 4), orjson.dumps(click))
        pipe.execute()


def start_canary(redis: Redis) -> RolloutState:
    """`OLD` serves, `NEW` is on trial at the first step of `PARAMS`."""
    control.install(redis, OLD, ACT)
    return rollout.start(redis, PARAMS, ACT, NEW)
