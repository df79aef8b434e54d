"""A shop collects events before it has anything to recommend."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from shops.service import READY_S, running_service

from pipelines.local.stack import waits_for_a_release

pytestmark = pytest.mark.fault
EVENT = {"type": "product_viewed", "session_id": "early", "item_id": "item-1", "event_id": "first"}


def test_without_a_release_events_are_taken_and_up_has_nothing_to_wait_for(tmp_path: Path) -> None:
    with running_service(tmp_path, release=False) as service:
        deadline = time.monotonic() + READY_S
        while not waits_for_a_release(f"{service.url}/livez", service.redis_url):
            assert time.monotonic() < deadline, service.log.read_text()
            time.sleep(0.1)
        with service.client() as client:
            posted = client.post("/v1/events", json={"events": [EVENT]})
            assert (posted.status_code, posted.json()["accepted"]) == (202, 1)
            asked = client.post("/v1/recommend", json={"surface": "homepage_hero"})
            assert asked.status_code == 503 and "no release is loaded yet" in asked.text
            assert client.get("/readyz").status_code == 503
