"""The Python client against the running service, and against one that fails on purpose."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))

from endcap_client import AsyncEndcap, Endcap, Event, Refused, Unavailable

from serving.http.requests import FIELDS

if TYPE_CHECKING:
    from shops.service import Service

pytest_plugins = ("shops.service",)
VIEW: Event = {"type": "product_viewed", "session_id": "s1", "item_id": "item-1"}


class Failing(ThreadingHTTPServer):
    """Answers with one status of `plan` after the other; `got` are the bodies."""

    plan: list[int]
    got: list[dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    server: Failing

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(json.loads(body))
        status = self.server.plan.pop(0)
        if status == 0:  # received, and then nothing
            self.connection.close()
            return
        told = b'{"accepted": 1, "duplicates": 0, "rejected": []}' if status == 202 else b'{"error": "x"}'
        self.send_response(status)
        self.send_header("content-length", str(len(told)))
        self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def failing() -> Iterator[Failing]:
    server = Failing(("127.0.0.1", 0), Handler)
    server.plan, server.got = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def url(server: Failing) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_lists_pages_order_and_events_of_the_running_service(service: Service) -> None:
    with Endcap(service.url, timeout_s=10) as shop:
        rail = shop.recommend("homepage_hero", session_id="s1", limit=3, fields=["title", "price"])
        assert len(rail["items"]) == 3 and rail["items"][0].get("title", "")
        hero, more = shop.page([{"surface": "homepage_hero"}, {"surface": "similar_items", "limit": 2}])
        assert (len(hero["items"]), len(more["items"])) == (12, 2)
        ranked = shop.rank("category_sort", ["item-1", "item-2"], session_id="s1")
        assert {slot["item_id"] for slot in ranked["items"]} == {"item-1", "item-2"}
        receipt = shop.events([VIEW, {"type": "click", "session_id": "s1"}])
        assert receipt["accepted"] == 1 and "item_id" in receipt["rejected"][0]["error"]
        assert shop.events([{"type": "click", "session_id": "s1"}])["accepted"] == 0
        with pytest.raises(Refused, match="a whole number from 1 to 100") as caught:
            shop.recommend("homepage_hero", limit=0)
        assert caught.value.status == 422 and caught.value.told["error"]["field"] == "limit"


def test_the_same_awaited(service: Service) -> None:
    async def ask() -> None:
        async with AsyncEndcap(service.url, timeout_s=10) as shop:
            rails = await asyncio.gather(*(shop.recommend("homepage_hero", limit=2) for _ in range(5)))
            assert {len(rail["items"]) for rail in rails} == {2}
            (page,) = await shop.page([{"surface": "pdp_fbt", "items": ["item-1"]}])
            assert page["surface"] == "pdp_fbt"
            assert (await shop.rank("category_sort", ["item-1"]))["items"][0]["item_id"] == "item-1"
            assert (await shop.events([VIEW]))["accepted"] == 1
            with pytest.raises(Refused, match="surface"):
                await shop.recommend("shelf")

    asyncio.run(ask())


@pytest.mark.parametrize("plan", [[503, 202], [0, 202], [502, 504, 202]])
def test_an_event_is_sent_again_under_the_same_id(failing: Failing, plan: list[int]) -> None:
    failing.plan = list(plan)
    with Endcap(url(failing)) as shop:
        assert shop.events([VIEW])["accepted"] == 1
    ids = {body["events"][0]["event_id"] for body in failing.got}
    assert len(failing.got) == len(plan) and len(ids) == 1 and ids.pop()


def test_a_service_that_never_answers_costs_so_many_tries_and_no_more(failing: Failing) -> None:
    failing.plan = [503] * 9
    with Endcap(url(failing), tries=2) as shop, pytest.raises(Unavailable, match="HTTP 503"):
        shop.recommend("homepage_hero")
    assert len(failing.got) == 2

    async def ask() -> None:
        async with AsyncEndcap(url(failing), tries=3) as shop:
            await shop.recommend("homepage_hero")

    with pytest.raises(Unavailable, match="3 tries"):
        asyncio.run(ask())
    with Endcap("http://127.0.0.1:9", tries=2) as shop, pytest.raises(Unavailable, match="no answer in time"):
        shop.recommend("homepage_hero")


def test_a_refusal_is_not_asked_again(failing: Failing) -> None:
    failing.plan = [422, 200]
    with Endcap(url(failing)) as shop, pytest.raises(Refused):
        shop.recommend("homepage_hero")
    assert len(failing.got) == 1


def test_its_types_have_the_fields_of_the_service() -> None:
    from endcap_client.messages import Slot

    from feature_repo.events import NAMES
    from feature_repo.features.catalogue import SHOWN

    assert set(Event.__annotations__) == set(NAMES) - {"created_ts"}
    assert set(Slot.__annotations__) == {"item_id", "slot", "score", "source", *SHOWN}
    assert "fields" in FIELDS


def test_the_example_of_the_docs_runs(service: Service) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "storefront.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)
    found: dict[str, Any] = {}
    exec(example.replace("http://127.0.0.1:3000", service.url).replace(", wait=True", ""), found)
    assert len(found["rail"]["items"]) == 4
