"""Live shoppers against a small real shop over HTTP: what they see decides what they click."""

from __future__ import annotations

import dataclasses
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import orjson
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from feature_repo import params
from feature_repo.events import check_event
from pipelines.simulate.crowd import drive
from pipelines.simulate.observed import Arm, Observed
from pipelines.simulate.shopper import Manners
from pipelines.simulate.simulate import Simulate, make_world
from pipelines.simulate.world import Context, World

START = datetime(2026, 2, 23, 8, tzinfo=UTC)


@dataclass
class Shop:
    """Ranks by long-term taste, best or worst first; all strangers look alike to it."""

    world: World
    arm: str = "best"  # best, worst, or both: by the last digit of the unit
    broken: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    batches: list[tuple[bool, list[dict[str, Any]]]] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for _, batch in self.batches for event in batch]

    async def recommend(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        self.asked.append(body)
        if self.broken:
            return Response(status_code=503)
        unit = body.get("user_id") or body["session_id"]
        arm = self.arm if self.arm != "both" else ("best", "worst")[int(unit[-1]) % 2]
        shopper = int(body["user_id"][1:]) if "user_id" in body else len(self.world.shoppers.budget) - 1
        focus = self.world.row[body["items"][0]] if body.get("items") else -1
        day = self.world.day(datetime.fromisoformat(body["as_of"]))
        context = Context(body["surface"], focus=focus, day=day)
        ranking = self.world.true_best_list(shopper, context, len(self.world.shop.item_ids))
        items = ranking[:12] if arm == "best" else ranking[-12:]
        number = sum(seen["session_id"] == body["session_id"] for seen in self.asked)
        answer = {
            "request_id": f"{body['session_id']}/{number}",
            "surface": body["surface"],
            "items": [{"item_id": item, "slot": slot, "score": 0.0} for slot, item in enumerate(items)],
            "arm": arm,
            "bundle": "b",
            "served_from": "live",
        }
        return Response(orjson.dumps(answer), media_type="application/json")

    async def collect(self, request: Request) -> Response:
        events = orjson.loads(await request.body())["events"]
        self.batches.append((request.query_params.get("wait") == "1", events))
        return Response(orjson.dumps({"accepted": len(events), "rejected": []}), status_code=202)


@pytest.fixture(scope="module")
def world() -> World:
    constants = params.load("simulate", Simulate)
    return make_world(constants, constants.size_of("tiny"), np.random.default_rng(3))


@pytest.fixture(scope="module")
def manners() -> Manners:
    return dataclasses.replace(params.load("shoppers", Manners), concurrency=3)


@pytest.fixture(scope="module")
def endpoint(world: World) -> Iterator[tuple[str, Shop]]:
    """A served Shop and its address; `shop` empties it between tests."""
    # Server and shoppers are two threads of one interpreter: hand over sooner than after 5 ms.
    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    shop = Shop(world)
    app = Starlette(
        routes=[
            Route("/v1/recommend", shop.recommend, methods=["POST"]),
            Route("/v1/events", shop.collect, methods=["POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    # Not serving.http.connections, which a test before may have installed: its end is the whole process's.
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, http="httptools"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", shop
    server.should_exit = True
    thread.join()
    listener.close()
    sys.setswitchinterval(patience)


@pytest.fixture
def shop(endpoint: tuple[str, Shop]) -> Shop:
    _, shop = endpoint
    shop.arm, shop.broken = "best", False
    shop.asked.clear()
    shop.batches.clear()
    return shop


@pytest.fixture
def url(endpoint: tuple[str, Shop]) -> str:
    return endpoint[0]


def test_a_shop_that_ranks_by_truth_is_clicked_far_more_than_its_reverse(
    url: str, shop: Shop, world: World, manners: Manners
) -> None:
    shop.arm = "both"
    summary = drive(url, world, np.random.default_rng(1), shoppers=240, start=START, manners=manners)
    best, worst = summary.arms["best"], summary.arms["worst"]
    assert summary.failures == 0 and summary.shoppers == 240
    assert best.clicks > 30 and best.ctr > 5 * worst.ctr
    per_look = best.ctr / world.examination(np.arange(1, 13)).mean()
    assert 0.03 < per_look < 0.2


def test_the_summary_counts_what_the_shop_received(
    url: str, shop: Shop, world: World, manners: Manners
) -> None:
    ticks: list[int] = []
    summary = drive(
        url,
        world,
        np.random.default_rng(2),
        shoppers=60,
        start=START,
        manners=manners,
        on_progress=ticks.append,
    )
    kinds = [event["type"] for event in shop.events]
    assert summary.arms["best"].impressions == kinds.count("impression") == 12 * len(shop.asked)
    assert summary.arms["best"].clicks == kinds.count("click") == kinds.count("product_viewed") > 0
    assert summary.requests == len(shop.asked) + len(shop.batches)
    assert (
        len(summary.latencies_ms) == len(shop.asked) and summary.latency_ms(99) >= summary.latency_ms(50) > 0
    )
    assert sum(ticks) == summary.shoppers == 60
    assert summary.lines()[0].startswith("60 shoppers")


def test_events_are_canonical_and_name_the_slot_that_was_seen(
    url: str, shop: Shop, world: World, manners: Manners
) -> None:
    drive(url, world, np.random.default_rng(4), shoppers=80, start=START, manners=manners)
    assert len({event["event_id"] for event in shop.events}) == len(shop.events)
    shown = {
        (e["request_id"], e["item_id"]): (e["slot"], e["surface"])
        for e in shop.events
        if e["type"] == "impression"
    }
    for event in shop.events:
        check_event(
            {**event, "event_ts": datetime.fromisoformat(event["event_ts"])}, datetime(2026, 3, 9, tzinfo=UTC)
        )
        if event["type"] in ("click", "product_viewed", "add_to_cart"):
            assert shown[event["request_id"], event["item_id"]] == (event["slot"], event["surface"])
    assert {"add_to_cart", "impression"} <= {event["type"] for event in shop.events}
    for _, batch in shop.batches:
        stamps = [event["event_ts"] for event in batch]
        assert stamps == sorted(stamps)


def test_requests_tell_context_and_clock_and_product_pages_follow_clicks(
    url: str, shop: Shop, world: World, manners: Manners
) -> None:
    hourly = dataclasses.replace(manners, seconds_between=3600.0)
    drive(url, world, np.random.default_rng(5), shoppers=200, start=START, manners=hourly)
    first: dict[str, dict[str, Any]] = {}
    for body in shop.asked:
        first.setdefault(body["session_id"], body)
        assert set(body["context"]) == {"device", "country", "channel"}
    assert {body["surface"] for body in first.values()} == {"homepage_hero"}
    named = np.mean(["user_id" in body for body in first.values()])
    assert 0.45 < named < 0.72
    days = {datetime.fromisoformat(body["as_of"]).date() for body in first.values()}
    assert len(days) == 9  # 200 hours from 08:00
    viewed = {(e["session_id"], e["item_id"]) for e in shop.events if e["type"] == "product_viewed"}
    onward = [body for body in shop.asked if body["surface"] == "pdp_fbt"]
    assert len(onward) > 5
    assert all((body["session_id"], body["items"][0]) in viewed for body in onward)
    returning = {body["session_id"] for body in onward}
    waits = {batch[0]["session_id"] for wait, batch in shop.batches if wait}
    assert returning <= waits


def test_what_shoppers_do_does_not_depend_on_how_many_walk_at_once(
    url: str, shop: Shop, world: World, manners: Manners
) -> None:
    runs = []
    for concurrency in (1, 12):
        shop.asked.clear()
        shop.batches.clear()
        crowded = dataclasses.replace(manners, concurrency=concurrency)
        drive(url, world, np.random.default_rng(6), shoppers=30, start=START, manners=crowded)
        runs.append(sorted(shop.events, key=lambda event: event["event_id"]))
    assert runs[0] == runs[1] and len(runs[0]) > 360


def test_failures_are_counted_and_end_the_visit(url: str, shop: Shop, world: World, manners: Manners) -> None:
    shop.broken = True
    summary = drive(url, world, np.random.default_rng(7), shoppers=20, start=START, manners=manners)
    assert (summary.shoppers, summary.requests, summary.failures) == (20, 20, 20)
    assert summary.arms == {} and np.isnan(summary.latency_ms(50)) and shop.batches == []


def test_an_endpoint_that_is_not_there_is_a_failure_not_a_crash(world: World, manners: Manners) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    summary = drive(nobody, world, np.random.default_rng(8), shoppers=5, start=START, manners=manners)
    assert (summary.requests, summary.failures) == (5, 5)


def test_a_summary_counts_a_user_once_a_day() -> None:
    monday, tuesday = date(2026, 2, 23), date(2026, 2, 24)
    seen = Observed(latencies_ms=[3.0, 5.0])
    for clicks, day in ((1, monday), (0, monday), (0, tuesday)):
        seen.listed("champion", 12, clicks, "U1", day)
    seen.listed("holdout", 12, 2, "U2", monday)
    assert seen.arms["champion"] == Arm(36, 1, {("U1", monday), ("U1", tuesday)})
    assert seen.arms["champion"].ctr == pytest.approx(1 / 36)
    assert seen.arms["holdout"] == Arm(12, 2, {("U2", monday)})
    assert seen.latency_ms(50) == 4.0
