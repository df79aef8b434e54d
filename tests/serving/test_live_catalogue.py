"""A running service and a consumer: what the shop says of an item is in the next answer within a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from shops.service import Service, running_service
from shops.storefront import CATALOGUE_KEY, SECRET
from shops.stream import consumer

from pipelines.ingest.items import main

KEY = {"authorization": f"Bearer {CATALOGUE_KEY}"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_CATALOGUE_TOKEN", CATALOGUE_KEY)
        with running_service(tmp_path_factory.mktemp("service")) as one:
            patch.setenv("ENDCAP_HOME", str(one.home))
            working = consumer(url=one.redis_url)
            thread = threading.Thread(target=working.run)
            thread.start()
            yield one
            working.stop()
            thread.join()


def say(http: httpx.Client, **item: Any) -> float:
    """Post one change; when its 202 was read."""
    answer = http.post("/v1/items", json={"items": [item]}, headers=KEY)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "rejected": []})
    return time.monotonic()


def asked(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    body = {"surface": "homepage_hero", "session_id": "s1", "limit": 12, "debug": True} | fields
    found: dict[str, Any] = http.post("/v1/recommend", json=body, headers=SECRET).json()
    return found


def log_price(answer: dict[str, Any], item: str) -> float | None:
    at = answer["debug"]["columns"].index("price_log")
    values = answer["debug"]["features"].get(item)
    return None if values is None else values[at]


def until(true: Any, since: float) -> float:
    while not true():
        assert time.monotonic() - since < 10, "it did not happen"
    return time.monotonic() - since


def test_price_and_stock_are_in_the_next_answer_within_a_second(shop: Service) -> None:
    with shop.client() as http:
        item = asked(http)["items"][0]["item_id"]
        taken = []
        for price in (11.0, 12.0, 13.0, 14.0, 15.0):
            since = say(http, item_id=item, price=price)
            wanted = pytest.approx(math.log(price), rel=1e-6)
            taken.append(until(lambda wanted=wanted: log_price(asked(http), item) == wanted, since))
        since = say(http, item_id=item, stock=0)

        def gone() -> bool:
            return item not in {slot["item_id"] for slot in asked(http)["items"]}

        taken.append(until(gone, since))
        since = say(http, item_id=item, stock=5)
        taken.append(until(lambda: not gone(), since))
        since = say(http, item_id=item, deleted=True)
        taken.append(until(gone, since))
        assert max(taken) < 1.0, taken
        ranked = http.post("/v1/rank", json={"surface": "category_sort", "items": [item, "item-3"]}).json()
        assert [slot["item_id"] for slot in ranked["items"]] == ["item-3"]


def test_wait_1_answers_when_it_is_applied_and_the_log_has_it(shop: Service) -> None:
    with shop.client() as http:
        body = {"items": [{"item_id": "item-5", "price": 3.5}]}
        assert http.post("/v1/items?wait=1", json=body, headers=KEY).json()["applied"] is True
        logs = Path(shop.home / "data/logs/items")
        until(lambda: list(logs.glob("*.parquet")), time.monotonic())
        assert http.post("/v1/items", json=body).status_code == 401


def test_a_file_is_pushed_and_what_was_refused_is_told(
    shop: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "items.csv"
    file.write_text("item_id,price,stock\nitem-7,21.5,\nitem-8,cheap,\nitem-6,,0\n")
    assert main("push", file, shop.url) == 1
    told = capsys.readouterr().out
    assert "2 accepted, 1 refused" in told and "row 2 ('item-8')" in told and "'cheap'" in told
    assert main("push", file, shop.url) == 1  # again: the same
    wanted = pytest.approx(math.log(21.5), rel=1e-6)
    with shop.client() as http:
        until(lambda: log_price(asked(http, limit=60), "item-7") == wanted, time.monotonic())
        assert "item-6" not in {slot["item_id"] for slot in asked(http, limit=60)["items"]}
