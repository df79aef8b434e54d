"""Releases of one small shop from the first to the third, every part real.

Train, gate, shadow, a canary that climbs and one that falls, what personalising is worth, a retrain on what
shoppers did, a refresh.

    make story                  some ten minutes
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml
from shops.checkout import check_out, commit, run
from shops.service import free_port

from pipelines.simulate.crowd import drive
from pipelines.simulate.observed import Observed
from pipelines.simulate.world import World

PORTS = ("REDIS", "SERVICE", "CONSOLE", "STOREFRONT")
LONG_S = 3_000.0


class Shop:
    """A clone with a small shop, its stack on free ports, and shoppers who may come."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.ports = {f"ENDCAP_{name}_PORT": str(free_port()) for name in PORTS}
        self.url = f"http://127.0.0.1:{self.ports['ENDCAP_SERVICE_PORT']}"
        self.dice = np.random.default_rng(5)

    def endcap(self, *args: str, allowed: tuple[int, ...] = (0,)) -> str:
        command = " ".join(("endcap", *args))
        return run(self.clone, command, LONG_S, allowed, ENDCAP_REPLAY="1", **self.ports)

    def told(self, *args: str) -> list[dict[str, Any]]:
        """What the command says as JSON, line by line."""
        return [orjson.loads(line) for line in self.endcap(*args, "--json").splitlines() if line]

    def serves(self) -> str:
        """The digest of the champion; there is no challenger."""
        state = self.told("rollout", "status")[0]
        assert state["challenger"] is None
        found: str = state["champion"]["digest"]
        return found

    def retrained(self) -> dict[str, Any]:
        """How a retrain went, whose shadow sees the shoppers who come meanwhile."""
        work = threading.Thread(target=self.endcap, args=("retrain",), kwargs={"allowed": (0, 1)})
        work.start()
        while work.is_alive():
            self.visited_by(50)
        found: dict[str, Any] = orjson.loads((self.clone / "run/simulated/retrain.json").read_bytes())
        return found

    def visited_by(self, shoppers: int) -> Observed:
        """People of the shop's world come, after those who came before."""
        kept = self.clone / "run/simulated/shoppers_until.txt"
        start = datetime.fromisoformat(kept.read_text())
        world = World.load(self.clone / "data/export/truth.npz")
        seen = drive(self.url, world, self.dice, shoppers=shoppers, start=start)
        kept.write_text((start + timedelta(minutes=shoppers)).isoformat())
        return seen


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    clone = check_out(tmp_path_factory.mktemp("life"))
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["simulate"]["sizes"]["simulated"] = {"departments": 4, "skus": 500, "sessions": 4000}
    params["two_tower"] |= {"epochs": 2, "most_epochs": 2}
    params["ranker"] |= {"max_rounds": 80, "min_data_in_leaf": 10}
    params["queries"] |= {"ranker": 2000, "evaluate": 600}
    params["gate"] |= {"min_queries": 50, "min_ratio": 0.5, "min_coverage": 0.1, "tolerance": 0.5}
    params["router"] |= {"holdout_share": 0.1}  # of few shoppers, enough to be compared with
    params["refresh"] |= {"min_queries": 30}
    params["rollout"]["switches"] |= {"p99_ms": 2_000.0}  # how busy the machine is decides nothing
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    commit(clone)
    found = Shop(clone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(clone))  # the shoppers' key is this shop's
        try:
            yield found
        finally:
            found.endcap("down")


@pytest.mark.story
def test_releases_of_a_shop_from_the_first_to_the_third(shop: Shop) -> None:
    told = shop.endcap("demo")
    good, bad = told[told.index("A good challenger") :].split("A bad challenger")
    assert "in the shadow" in good and "in the shadow" in bad
    assert good.count("ADVANCE: ") == 3 and "ROLLBACK: " not in good
    assert "ROLLBACK: " in bad
    champion = shop.serves()
    candidate = shop.clone / "data/bundles/candidate/manifest.json"
    assert champion == orjson.loads(candidate.read_bytes())["digest"]

    shop.visited_by(1_500)
    worth = shop.told("experiment", "results", "holdout")[0]
    assert min(worth["visitors"].values()) > 100 and not worth["void"]
    ctr = {line["metric"]: line for line in worth["lines"]}["ctr"]
    assert ctr["lower"] < ctr["estimate"] < ctr["upper"] and ctr["verdict"] in ("better", "worse", "open")

    summary = shop.retrained()
    assert summary["outcome"] == "on trial", summary
    assert summary["events"] > 10_000 and summary["moved_days"] >= 1
    assert summary["candidate"] != champion == summary["champion"]
    # What the guard needs thousands of shoppers for, a person may decide.
    for _ in range(3):
        shop.visited_by(100)
        shop.endcap("rollout", "advance", "--why", "'the day is short'")
    assert shop.serves() == summary["candidate"]

    shop.visited_by(300)
    told = shop.endcap("refresh", allowed=(0, 1))
    third = shop.serves()
    assert ("is champion, fitted up to" in told) == (third != summary["candidate"]), told
    assert third != summary["candidate"] or "not released: " in told
    found = [one["release"] for one in shop.told("rollout", "history")]
    assert {champion, third, summary["candidate"]} <= {*found} and found.index(champion) > 0
