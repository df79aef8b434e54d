"""Who calls, by what: each refusal by its words, any bytes as a key, a key that is being replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops.storefront import HERO, SECRET, SECRET_KEY, Shop, give_keys, make_home, metric, open_shop

from feature_repo.errors import ParamsError
from feature_repo.eventlog.keys import stream_key
from feature_repo.ports import tokens, tokens_file
from serving.access.credentials import KeyRules, Keys, proof_of

DE, AT, OLD = "publishable-key-of-de", "publishable-key-of-at", "publishable-old-of-de"
PAGE, OTHER = "https://shop.example", "https://other.example"
GET = "/v1/recommend?surface=homepage_hero"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        held = {"publishable": {"de": (DE, OLD), "at": (AT,)}, "secret": {"": (SECRET_KEY,)}}
        give_keys(opened, required=True, origins={"de": (PAGE,)}, **held)
        yield opened


def asked(
    shop: Shop, key: str | None = None, in_address: str | None = None, **headers: str
) -> httpx.Response:
    sent = {**headers, **({"authorization": f"Bearer {key}"} if key else {})}
    return shop.client.get(GET + (f"&key={in_address}" if in_address else ""), headers=sent)


def test_where_keys_are_required_nobody_is_answered_without_one(shop: Shop) -> None:
    bodies = {
        "/v1/recommend": HERO,
        "/v1/rank": {**HERO, "items": ["item-1"]},
        "/v1/page": {"surfaces": [{"surface": "homepage_hero"}]},
        "/v1/events": {"events": [{}]},
    }
    for path, body in bodies.items():
        refused = shop.client.post(path, json=body)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["allowed"] == "a publishable or the secret key"
    for key in (DE, OLD, AT, SECRET_KEY):  # the old one goes on while it is being replaced
        assert asked(shop, key).status_code == 200
    unknown = asked(shop, "publishable-key-of-nobody")
    assert unknown.status_code == 401 and "an unknown key" in unknown.text


def test_a_publishable_key_may_stand_in_an_address_and_a_secret_one_may_not(shop: Shop) -> None:
    assert asked(shop, in_address=DE).status_code == 200
    posted = shop.client.post(
        f"/v1/events?wait=0&key={AT}", json={"events": [{"type": "scroll", "session_id": "s"}]}
    )
    assert posted.status_code == 202
    refused = asked(shop, in_address=SECRET_KEY)
    assert refused.status_code == 403 and "in the log of every machine" in refused.text
    assert SECRET_KEY not in refused.text and "make a new one" in refused.json()["error"]["next"]


def test_a_storefronts_key_is_refused_to_pages_of_other_origins(shop: Shop) -> None:
    assert asked(shop, DE, origin=PAGE).status_code == 200
    assert asked(shop, DE).status_code == 200  # no browser
    refused = asked(shop, DE, origin=OTHER)
    assert refused.status_code == 403 and "access.keys.origins" in refused.text
    assert asked(shop, AT, origin=OTHER).status_code == 200


@pytest.mark.parametrize("field", [{"debug": True}, {"as_of": 1_476_662_400_000_000}])
def test_what_is_secret_is_answered_to_the_shops_servers_alone(shop: Shop, field: dict[str, object]) -> None:
    name = next(iter(field))
    refused = shop.client.post(
        "/v1/recommend", json={**HERO, **field}, headers={"authorization": f"Bearer {DE}"}
    )
    assert refused.status_code == 401 and refused.json()["error"]["field"] == name
    assert refused.json()["error"]["allowed"] == "with the secret key"
    assert shop.client.post("/v1/recommend", json={**HERO, **field}, headers=SECRET).status_code == 200
    give_keys(shop)
    shut = shop.client.post("/v1/recommend", json={**HERO, **field})
    assert shut.status_code == 403 and "ENDCAP_SECRET_TOKEN" in shut.json()["error"]["next"]
    assert asked(shop).status_code == 200  # the plane is open, what is secret stays so


def test_where_proofs_are_asked_for_nobody_reads_or_writes_another_shoppers_history(shop: Shop) -> None:
    give_keys(shop, user_proof=True, secret={"": (SECRET_KEY,)})
    ann, bob = proof_of(SECRET_KEY, "ann"), proof_of(SECRET_KEY, "bob")
    item, views = {"items": ["item-1"]}, [{"surface": "homepage_hero"}]
    asking = {"/v1/recommend": HERO, "/v1/rank": HERO | item, "/v1/page": {"surfaces": views}}
    for path, body in asking.items():
        for proof in (None, bob, ann[:-1], "é"):
            refused = shop.post(path, {**body, "user_id": "ann", "user_proof": proof})
            assert refused.status_code == 401 and refused.json()["error"]["field"] == "user_id", refused.text
        assert shop.post(path, {**body, "user_id": "ann", "user_proof": ann}).status_code == 200
        assert shop.post(path, {**body, "user_id": None, "session_id": "s"}).status_code == 200
        trusted = shop.client.post(path, json={**body, "user_id": "ann"}, headers=SECRET)
        assert trusted.status_code == 200
    assert "the user_proof of this id" in refused.text
    assert [shop.client.get(f"{GET}&user_id=ann{end}").status_code for end in ("", f"&user_proof={ann}")] == [
        *(401, 200)
    ]
    told = {"type": "product_viewed", "session_id": "s", "item_id": "item-1"}
    batch = {"events": [{**told, "user_id": "ann"}, {**told, "user_id": "bob"}, told], "user_proof": ann}
    answer = shop.post("/v1/events", batch).json()
    assert (answer["accepted"], [one["index"] for one in answer["rejected"]]) == (2, [1])
    assert "user_id" in answer["rejected"][0]["error"]


def test_where_proofs_are_asked_for_another_systems_client_names_shoppers_by_the_secret_key(
    shop: Shop,
) -> None:
    give_keys(shop, user_proof=True, secret={"": (SECRET_KEY,)})
    path = "/compat/gorse/api/recommend/ann?n=3"
    assert shop.client.get(path).status_code == 401
    assert shop.client.get(path, headers={"X-API-Key": SECRET_KEY}).status_code == 200
    read = {"FeedbackType": "read", "UserId": "ann", "ItemId": "item-1"}
    for headers, owner in (({}, None), ({"X-API-Key": SECRET_KEY}, "ann")):
        before = entries(shop)
        assert shop.client.post("/compat/gorse/api/feedback", json=[read], headers=headers).json() == {
            "RowAffected": 1
        }
        (event,) = [one for one in entries(shop) if one not in before]
        assert event["user_id"] == owner and "ann" not in event["session_id"]
        read = {**read, "ItemId": "item-2"}
    hidden, asked_of, rows = event["session_id"], set(), shop.features.read

    async def reading(user: str | None, visit: str | None, *more: Any, **named: Any) -> Any:
        asked_of.add((user, visit))
        return await rows(user, visit, *more, **named)

    shop.features.read = reading  # type: ignore[method-assign]
    assert shop.client.get(path, headers={"X-API-Key": SECRET_KEY}).status_code == 200
    ranked = {"user": "ann", "items": [{"id": "item-5"}]}
    assert shop.client.post("/compat/metarank/rank/x", json=ranked, headers=SECRET).status_code == 200
    assert asked_of == {("ann", hidden)}  # the doors find it; whoever guesses "ann" finds another
    device = {"client_id": "1.2", "events": [{"name": "view_item", "params": {"items": [{"item_id": "a"}]}}]}
    assert shop.client.post("/compat/ga4/mp/collect", json=device).status_code == 204
    assert "1.2" in {one["session_id"] for one in entries(shop)}  # made at random, and known to its page


def entries(shop: Shop) -> list[dict[str, Any]]:
    found = [one for p in range(4) for one in shop.redis.xrange(stream_key(p))]
    return [orjson.loads(fields[b"event"]) for _, fields in found]


def test_a_head_shows_nobody_a_list(shop: Shop) -> None:
    give_keys(shop)
    before = metric("endcap_answers_total", surface="homepage_hero", arm="champion", served_from="live")
    answer = shop.client.head(GET)
    assert (answer.status_code, answer.content) == (200, b"")
    assert shop.client.head("/v1/recommend?surface=nowhere").status_code == 422
    assert (
        metric("endcap_answers_total", surface="homepage_hero", arm="champion", served_from="live") == before
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=300), st.binary(max_size=60), st.sampled_from([b"Bearer ", b"bearer", b"Basic ", b""])
)
def test_any_bytes_as_a_key_are_refused_and_nothing_breaks(
    shop: Shop, key: bytes, query: bytes, scheme: bytes
) -> None:
    headers = [(b"authorization", scheme + key), (b"x-api-key", key)]
    quoted = "".join(f"%{byte:02X}" for byte in query)
    for path in (f"{GET}&key={quoted}", f"/compat/gorse/api/popular?key={quoted}"):
        answer = shop.client.get(path, headers=headers)
        assert answer.status_code in (401, 422), answer.text


def test_one_key_opens_one_thing_and_labels_are_those_that_are_there() -> None:
    with pytest.raises(ParamsError, match="secret and publishable:de have the same key"):
        Keys(KeyRules(False, {}), {"publishable": {"de": (DE,)}, "secret": {"": (DE,)}})
    with pytest.raises(ParamsError, match=r"access.keys.origins.ch: no publishable key .* allowed: de"):
        Keys(KeyRules(False, {"ch": (PAGE,)}), {"publishable": {"de": (DE,)}})
    with pytest.raises(ParamsError, match=r"access.keys.user_proof: true, and there is no secret key"):
        Keys(KeyRules(False, {}, True), {"publishable": {"de": (DE,)}})
    with pytest.raises(ParamsError, match=r"access.keys.required: true, and there is no key"):
        Keys(KeyRules(True, {}), {})


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{"secret": "short"}', "not a key; allowed: a text of 16 or more"),
        (
            '{"secret": ["the-first-of-three", "the-second-of-three", "the-third-of-three"]}',
            "or two of them while the older one is being replaced",
        ),
        ('{"publishable": {"de": 7}}', "publishable: not a key"),
        ("[]", "not a JSON object"),
    ],
)
def test_a_file_of_keys_that_is_wrong_is_refused_by_its_place(
    home: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, written: str, told: str
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    file = tokens_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(written)
    with pytest.raises(Exception, match=told) as refused:
        tokens("publishable" if "publishable" in written else "secret")
    assert str(file) in str(refused.value)
    file.unlink()
