"""nginx in front: lists for anybody are shared, a shopper's own go to nobody else, faults are bridged."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops.edge import CONF, NGINX, Edge, edge
from shops.service import Service
from shops.stream import wait_until

from serving.errors import RequestError
from serving.http.api import cache_headers
from serving.http.requests import parse_query
from serving.types import Answer

pytest_plugins = ("shops.service",)
pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is not installed")
LIST = "/v1/recommend"
HERO = {"surface": "homepage_hero"}
TURNED_S = 2.2  # after so long 1 s is over: nginx counts whole seconds


@dataclass
class Upstream:
    """In the service's place, by its own parser and its own headers; `mood` is "well", "fails" or "held"."""

    url: str = ""
    mood: str = "well"
    ttl_s: int = 90
    asked: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    found, serial = Upstream(), itertools.count()
    healthy = Answer("r", "homepage_hero", (), "champion", "b", "live", None, 0, 1.0)

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.asked.append((self.command, self.path))
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if found.mood == "held":
                found.released.wait(10)
            headers, status = {}, 503 if found.mood == "fails" else 200
            who: list[str | None] = []
            if status == 200:
                try:
                    request = parse_query(parse_qsl(urlsplit(self.path).query), 100)
                    who = [request.user_id, request.session_id]
                    shared = self.command == "GET" and not any(who)
                    headers = cache_headers(healthy, shared, found.ttl_s)
                except RequestError as error:
                    status = error.status
            told = json.dumps({"serial": next(serial), "for": who, "body": body.decode()}).encode()
            self.send_response(status)
            for name, value in {**headers, "Vary": "Origin", "Content-Length": str(len(told))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told)

        do_POST = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def front(tmp_path: Path, upstream: Upstream) -> Iterator[Edge]:
    with edge(tmp_path, upstream.url) as found:
        yield found


def ask(front: Edge, **query: str) -> httpx.Response:
    return httpx.get(front.url + LIST, params={**HERO, **query}, timeout=10)


def test_a_list_for_anybody_is_asked_once_and_its_reader_s_browser_keeps_nothing(
    front: Edge, upstream: Upstream
) -> None:
    first, second = ask(front, device="mobile"), ask(front, device="mobile")
    assert [one.headers["x-cache-status"] for one in (first, second)] == ["MISS", "HIT"]
    assert first.json() == second.json() and len(upstream.asked) == 1
    assert second.headers["cache-control"] == "private, no-store"
    assert ask(front, device="desktop").json() != first.json()
    origins = [
        httpx.get(front.url + LIST, params=HERO, headers={"Origin": f"https://{x}.example"}) for x in "ab"
    ]
    assert origins[0].json() != origins[1].json()


def test_what_names_a_shopper_or_shows_a_key_and_every_post_goes_through(
    front: Edge, upstream: Upstream
) -> None:
    for _ in range(2):
        assert ask(front, user_id="U1").headers["x-cache-status"] == "BYPASS"
        httpx.get(front.url + LIST, params=HERO, headers={"Authorization": "Bearer a-secret-key-0123"})
        httpx.post(front.url + LIST, json=HERO)
        httpx.post(f"{front.url}/v1/events?wait=1", json={"events": []})
        httpx.head(front.url + LIST, params=HERO)
    assert len(upstream.asked) == 10
    assert httpx.get(f"{front.url}/metrics").status_code == 404 and len(upstream.asked) == 10
    upstream.mood = "fails"
    assert httpx.post(f"{front.url}/v1/events", json={}).status_code == 503
    assert ask(front, user_id="U1").status_code == 503 and len(upstream.asked) == 12  # none is sent twice


def test_an_old_list_is_shown_at_once_while_one_new_one_is_fetched(front: Edge, upstream: Upstream) -> None:
    upstream.ttl_s = 1
    old = ask(front).json()
    time.sleep(TURNED_S)
    upstream.mood = "held"
    assert all(ask(front).json() == old for _ in range(3))
    wait_until(lambda: len(upstream.asked) == 2)
    upstream.released.set()
    wait_until(lambda: ask(front).json() != old)
    assert len(upstream.asked) == 2


def test_while_the_service_fails_or_is_away_the_last_list_stands_in(front: Edge, upstream: Upstream) -> None:
    text = front.conf.read_text()
    front.conf.write_text(
        text.replace("revalidate=90", "revalidate=0").replace("if-error=3600", "if-error=3")
    )
    front.reload()
    upstream.ttl_s = 1
    old = ask(front).json()
    upstream.mood = "fails"
    time.sleep(TURNED_S)
    bridged = ask(front)
    assert (bridged.status_code, bridged.json()) == (200, old)
    assert bridged.headers["x-cache-status"] == "STALE"
    time.sleep(3 + TURNED_S)
    assert ask(front).status_code == 502  # older than 1 s and 3 s: the bound holds


def test_another_generation_forgets_everything(front: Edge, upstream: Upstream) -> None:
    old = ask(front).json()
    front.conf.write_text(front.conf.read_text().replace("default 1; }\n", "default 2; }\n", 1))
    front.reload()
    assert ask(front).json() != old
    assert ask(front).headers["x-cache-status"] == "HIT"


def spelled(name: str) -> st.SearchStrategy[str]:
    """A parameter's name with any of its letters as %XX."""
    each = [st.sampled_from((letter, f"%{ord(letter):02X}", f"%{ord(letter):02x}")) for letter in name]
    return st.tuples(*each).map("".join)


NAMES = st.sampled_from(("user_id", "session_id", "device", "items")).flatmap(spelled)
PAIRS = st.lists(
    st.tuples(NAMES, st.sampled_from(("a", "b", "%61", "a%26user_id%3Db", quote("ü")))), max_size=4
)
ASKED = st.tuples(PAIRS, st.booleans(), st.sampled_from((LIST, "/v1//recommend", "/v1/%72ecommend")))


def test_nobody_is_ever_handed_the_list_of_another(front: Edge) -> None:
    handed: dict[int, str] = {}

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(ASKED, min_size=2, max_size=6))
    def each(requests: list[tuple[list[tuple[str, str]], bool, str]]) -> None:
        for pairs, ahead, path in requests:
            parts = [f"{name}={value}" for name, value in pairs]
            query = "&".join(
                [*parts, "surface=homepage_hero"] if ahead else ["surface=homepage_hero", *parts]
            )
            answer = client.get(f"{path}?{query}")
            if answer.status_code != 200:
                continue
            request = parse_query(parse_qsl(query), 100)
            told = answer.json()
            assert told["for"] == [request.user_id, request.session_id]
            meant = repr(request)
            if request.user_id or request.session_id:
                assert told["serial"] not in handed  # made for this question
            assert handed.setdefault(told["serial"], meant) == meant

    with httpx.Client(base_url=front.url, timeout=10) as client:
        each()
    assert len(handed) > 100


def test_the_real_service_behind_it_shares_by_cohort_and_answers_each_shopper_anew(
    tmp_path: Path, service: Service
) -> None:
    with edge(tmp_path, service.url) as front:
        shared = [ask(front, country="DE").json()["request_id"] for _ in range(3)]
        assert len(set(shared)) == 1
        own = [ask(front, user_id=f"U{n % 2}", session_id="s").json()["request_id"] for n in range(4)]
        assert len({*own, *shared}) == 5
        event = {"type": "product_viewed", "session_id": "s", "item_id": "item-1"}
        told = httpx.post(f"{front.url}/v1/events", json={"events": [event]})
        assert (told.status_code, told.json()["accepted"]) == (202, 1)
        assert httpx.get(f"{front.url}/endcap.js").status_code == 200


def test_the_page_on_deployment_tells_the_bounds_that_the_file_sets() -> None:
    ttl_s = yaml.safe_load((CONF.parents[2] / "params.yaml").read_text())["serving"]["edge_ttl_s"]
    page = (CONF.parents[2] / "docs/deploy.md").read_text()
    assert "stale-while-revalidate=90, stale-if-error=3600" in CONF.read_text()
    assert f"{ttl_s + 90} s" in page and f"{ttl_s + 3600:,} s" in page
