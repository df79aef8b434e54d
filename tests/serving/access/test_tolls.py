"""Buckets drain steadily, in Redis and in a worker alike, and a refusal says when to come back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from shops.storefront import HERO, SECRET, Shop, ask, make_home, metric, open_shop
from starlette.requests import Request as HttpRequest

from feature_repo.errors import ParamsError
from feature_repo.persons.pseudonyms import Persons
from serving.access.credentials import Caller
from serving.access.tolls import BUCKET, PLACE, Bucket, LocalRates, Rate, Rates, RatesOf, TollGate
from serving.errors import RequestError
from serving.flags.evaluations import Evaluations
from serving.flags.flagbook import Flagbook
from serving.http.callers import address

SLOW = Rate(per_s=1.0, burst=3)
STILL = Rate(per_s=0.01, burst=3)
WIDE = Rate(per_s=1000.0, burst=1000)
ALL_WIDE = RatesOf(key=WIDE, shopper=WIDE, address=WIDE)
GATE = RatesOf(key=WIDE, shopper=SLOW, address=Rate(per_s=1.0, burst=2))
ANYBODY = Caller("open")


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory, redis_url: str, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    home = make_home(tmp_path_factory.mktemp("home"))
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


def charged(redis: Redis, gate: TollGate, shopper: str | None, address: str | None = None) -> int:
    toll = gate.lists(ANYBODY, shopper, address)
    reply: int = redis.execute_command(*_words(toll.command))
    return reply


def _words(command: bytes) -> list[bytes]:
    """The words of a command as it stands on the wire."""
    words, at = [], command.index(b"\r\n") + 2
    while at < len(command):
        end = command.index(b"\r\n", at)
        size = int(command[at + 1 : end])
        words.append(command[end + 2 : end + 2 + size])
        at = end + 4 + size
    return words


def test_a_burst_passes_and_the_next_one_is_told_when(redis_url: str) -> None:
    gate = TollGate(Rates(GATE, GATE, SLOW))
    with Redis.from_url(redis_url) as redis:
        assert [charged(redis, gate, "ann") for _ in range(3)] == [0, 0, 0]
        refused = charged(redis, gate, "ann")
        assert charged(redis, gate, "bob") == 0
        keys = redis.keys(BUCKET + "*")
        assert len(keys) >= 2 and all(-2 <= redis.pttl(key) <= 3_100 for key in keys)
        assert not [key for key in keys if b"ann" in key]  # names from outside reach no key
    assert refused // PLACE == 2 and 0 < refused % PLACE <= 1_000
    with pytest.raises(RequestError) as told:
        gate.lists(ANYBODY, "ann", None).settle(refused)
    assert (told.value.status, told.value.retry_after_s, told.value.field) == (429, 1, "shopper")
    assert told.value.allowed == "3 at once, then 1 a second, for one shopper (lists)"


def test_an_address_is_charged_whoever_it_says_it_is_and_the_shops_servers_by_their_key_alone() -> None:
    gate = TollGate(Rates(GATE, GATE, SLOW))
    for shopper in ("made-up-1", None):
        gate.lists(ANYBODY, shopper, "203.0.113.7").settle(None)
    for refused in (gate.lists, lambda *who: gate.events(*who, 1)):
        refused(ANYBODY, "made-up-2", "203.0.113.8").settle(None)
        refused(ANYBODY, "made-up-3", "203.0.113.8").settle(None)
        with pytest.raises(RequestError, match="for one address"):
            refused(ANYBODY, "made-up-4", "203.0.113.8").settle(None)
    with pytest.raises(RequestError, match="for one address"):
        gate.lists(ANYBODY, None, "203.0.113.7").settle(None)
    for _ in range(50):
        gate.lists(Caller("secret"), "ann", "203.0.113.7").settle(None)


def test_in_redis_made_up_shoppers_share_their_address(redis_url: str) -> None:
    gate = TollGate(Rates(GATE, GATE, SLOW))
    with Redis.from_url(redis_url) as redis:
        replies = [charged(redis, gate, f"made-up-{n}", "203.0.113.7") for n in range(3)]
        assert replies[:2] == [0, 0] and replies[2] // PLACE == 3
        assert charged(redis, gate, "ann", "203.0.113.8") == 0


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::ffff:127.0.0.1", None),
        ("0:0:0:0:0:0:0:1", None),
        ("127.0.0.1", None),
        ("fe80::zz", "fe80::zz"),
    ],
)
def test_an_address_stands_for_whoever_was_given_it(host: str, known: str | None) -> None:
    assert address(HttpRequest({"type": "http", "client": (host, 1)})) == known


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3)), max_size=60))
def test_no_schedule_gets_more_than_the_burst_and_what_drained(asked: list[tuple[float, int]]) -> None:
    now = 0.0
    rates = LocalRates(lambda: now)
    passed = 0
    for pause, units in asked:
        now += pause
        passed += units * (rates.charge([Bucket("key", "k", SLOW)], units) == 0)
        assert passed <= SLOW.burst + SLOW.per_s * now + 1e-6


def test_while_redis_is_away_each_worker_counts_for_itself_and_tells(shop: Shop) -> None:
    before = metric("endcap_rates_local_total")
    shop.features.error = ConnectionError("away")
    assert ask(shop)["degraded"] == "features_unavailable"
    assert metric("endcap_rates_local_total") == before + 1


def test_over_http_it_is_429_with_the_seconds_to_wait(shop: Shop) -> None:
    app = shop.client.app
    desk = app.state.desk
    app.state.desk = type(desk)(
        desk.storefront, desk.ingress, desk.params, desk.keys, TollGate(Rates(GATE, GATE, SLOW))
    )
    answers = [shop.client.post("/v1/recommend", json=HERO) for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    error = answers[-1].json()["error"]
    assert answers[-1].headers["retry-after"] == "1" and error["field"] == "shopper"
    assert "access.rates in params.yaml" in error["next"]
    view = {"type": "product_viewed", "session_id": "s9", "item_id": "item-1"}
    posted = [shop.client.post("/v1/events", json={"events": [view] * 3}) for _ in range(2)]
    assert [one.status_code for one in posted] == [202, 429]


def test_events_are_charged_as_told_whether_one_of_them_is_any_good(shop: Shop) -> None:
    desk = shop.client.app.state.desk
    rates = RatesOf(key=SLOW, shopper=WIDE, address=WIDE)
    wrong = {"events": [{"type": "viewed", "session_id": "s9"}] * 3}
    theirs = [{"event": "nothing_of_ours", "id": "1", "timestamp": "1599391467000"}] * 3
    for path, body, answers in (
        ("/v1/events", wrong, [422, 429]),
        ("/compat/metarank/feedback", theirs, [200, 429]),
    ):
        shop.redis.delete(*shop.redis.keys(BUCKET + "*"), "none")
        shop.client.app.state.desk = replace(desk, gate=TollGate(Rates(rates, rates, WIDE)))
        posted = [shop.client.post(path, json=body) for _ in range(2)]
        assert [one.status_code for one in posted] == answers
        assert posted[-1].json()["error"]["field"] == "key"


def test_of_an_address_that_is_refused_too_often_only_what_is_small_is_read(shop: Shop) -> None:
    """A neighbour behind the same address keeps his lists and his clicks."""
    desk = shop.client.app.state.desk
    ofrep = "/compat/ofrep/v1/evaluate/flags"
    asked = (("/compat/ga4/mp/collect", b"no json"), (ofrep, b"{"), ("/v1/nowhere", b""))
    large, view = b"x" * 5_000, {"type": "product_viewed", "session_id": "s9", "item_id": "item-1"}
    shop.client.app.state.desk = replace(desk, gate=TollGate(Rates(ALL_WIDE, ALL_WIDE, STILL)))
    far, behind = shop.client, shop.client._transport
    behind.client = ("203.0.113.9", 1)  # type: ignore[attr-defined]
    assert [far.post(path, content=body).status_code for path, body in asked] == [204, 404, 404]
    refused = far.post("/v1/recommend", content=large)
    assert (refused.status_code, refused.json()["error"]["field"]) == (429, "address")
    assert "(refused)" in refused.text and int(refused.headers["retry-after"]) > 60
    assert far.post("/compat/ga4/mp/collect", content=large).status_code == 429
    assert far.post("/v1/events", content=iter([b"{}"])).status_code == 429  # as large as it likes
    own = far.post("/v1/recommend", content=large, headers=SECRET)  # of the shop's servers
    assert own.status_code == 400
    assert far.post("/v1/recommend", content=b"{").status_code == 400
    assert far.post("/v1/recommend", json=HERO).status_code == 200
    assert far.get("/v1/recommend?surface=homepage_hero").status_code == 200
    assert far.post("/v1/events", json={"events": [view]}).status_code == 202
    behind.client = ("203.0.113.8", 1)  # type: ignore[attr-defined]
    assert far.post("/v1/recommend", content=large).status_code == 400  # another address


def test_evaluations_of_flags_are_charged_as_lists(shop: Shop) -> None:
    app = shop.client.app
    slow = RatesOf(key=WIDE, shopper=STILL, address=WIDE)
    flags = Flagbook(shop.redis, lambda version: None)
    app.state.desk = replace(
        app.state.desk, gate=TollGate(Rates(slow, slow, WIDE)), evaluations=Evaluations(flags, Persons(), 0.0)
    )
    told = {"context": {"targetingKey": "ann"}}
    for path, expected in (("", [200, 200, 200, 429]), ("/layout", [429])):
        answers = [shop.post(f"/compat/ofrep/v1/evaluate/flags{path}", told) for _ in expected]
        assert [one.status_code for one in answers] == expected
        assert int(answers[-1].headers["retry-after"]) > 60


def test_a_head_is_judged_and_charged_as_the_list_that_it_asks_for(shop: Shop) -> None:
    desk = shop.client.app.state.desk
    for path, wrong in (
        ("/compat/gorse/api/recommend/u1", "?n=x"),
        ("/v1/recommend?surface=homepage_hero&user_id=u1", "&limit=0"),
        ("/compat/snowplow/i?e=pv&duid=d", "&%FF=1"),
    ):
        rates = RatesOf(key=SLOW, shopper=WIDE, address=WIDE)
        shop.client.app.state.desk = replace(desk, gate=TollGate(Rates(rates, rates, WIDE)))
        answers = [shop.client.head(path).status_code for _ in range(4)]
        assert answers == [200, 200, 200, 429], path
        assert shop.client.head(path + wrong).status_code in (400, 422), path


def test_a_rate_that_nothing_passes_is_refused() -> None:
    with pytest.raises(ParamsError, match="per_s over 0, burst from 1 to what drains in 3600 s"):
        Rate(per_s=0.0, burst=5)
