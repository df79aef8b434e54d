"""Whatever is typed into the editor is answered with words: 10,000 random documents through its door."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from shops.rules import IDS, ITEMS, NOW
from shops.storefront import StillFeatures
from shops.tiny_bundle import make
from starlette.testclient import TestClient

from feature_repo.online.changes import APPLIED_TS
from feature_repo.params import load
from feature_repo.persons.privacy import persons
from monitoring.console.app import build_app
from monitoring.experiment.attribution import FeedbackParams
from monitoring.fitting.showroom import Showroom
from monitoring.merchandising import drafts, fittings
from monitoring.merchandising.fittings import Fittings
from monitoring.pages.desk import ROLES, Asked, ConsoleParams, Desk, Person
from serving.release import bundle, state, workers
from serving.rules import published

PIN = {"rules": [{"id": "hero", "do": {"pin": {"items": ["item-11"], "slots": [0]}}}]}
ANA = Person("merchandiser", "ana")
WORDS = (
    *("rules", "id", "why", "when", "do", "pin", "boost", "block", "floor", "at_most", "only", "where"),
    *("items", "slots", "brand", "category", "tag", "price", "from", "until", "surface", "version"),
)


@pytest.fixture
def desk(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    path = make(tmp_path, 60)
    monkeypatch.setitem(ITEMS.shown, "title", [f"Title <of> {item}" for item in IDS])
    features: Any = StillFeatures(ITEMS)
    features.refresh = lambda: 0
    room = Showroom(bundle.load(path), features, {item: f"Title <of> {item}" for item in IDS})
    params = ConsoleParams(audit_entries=50, looks=3, session_s=60, pictures="http://127.0.0.1:1")
    with redis.Redis.from_url(redis_url) as store:
        state.install(store, state.Release("a" * 16, str(path)), state.Act("ana", "first", 1))
        found = Desk(store, tmp_path, params, load("feedback", FeedbackParams), 0.03)
        found.once(Fittings, lambda: Fittings(found, lambda _: room))
        yield found


def document(rng: random.Random, depth: int = 0) -> Any:
    """JSON of any shape, with the schema's own words in it, so that much of it is nearly right."""
    kind = rng.randrange(9 if depth < 5 else 6)
    if kind == 0:
        return rng.choice([None, True, False, 0, -1, 3, 1e308, 2**70, 0.5])
    if kind < 4:
        return rng.choice([*WORDS, "homepage_hero", "item-7", "2026-01-01T00:00:00Z", "<b>", "\ud800", ""])
    if kind < 6:
        return {"brand": "brand 1"} if rng.random() < 0.5 else rng.randrange(-5, 200)
    if kind == 6:
        return [document(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(WORDS): document(rng, depth + 1) for _ in range(rng.randrange(5))}


def nearly(rng: random.Random) -> str:
    """A document of rules in which something is replaced, or text that is none."""
    if rng.random() < 0.1:
        return "".join(rng.choice(string.printable) for _ in range(rng.randrange(60)))
    action = rng.choice(("pin", "boost", "block", "floor", "at_most", "only"))
    right = {
        "pin": {"items": ["item-7"], "slots": [0]},
        "boost": {"where": {"brand": "brand 1"}, "factor": 2.0},
        "block": {"where": {"price": {"to": 5}}},
        "floor": {"stock": 3},
        "at_most": {"per": "brand", "slots": 2},
        "only": {"where": {"item_id": ["item-1"]}},
    }
    rule: dict[str, Any] = {"id": rng.choice(("a", "b")), "do": {action: right[action]}}
    if rng.random() < 0.5:
        rule[rng.choice(("when", "do", "id", "why"))] = document(rng, 3)
    if rng.random() < 0.3:
        right[action][rng.choice(WORDS)] = document(rng, 4)  # type: ignore[index]
    whole = {"rules": [rule]} if rng.random() < 0.9 else document(rng)
    return json.dumps(whole)


def test_no_document_is_a_fault_of_ours(desk: Desk) -> None:
    rng, right = random.Random(7), 0
    for _ in range(10_000):
        text = nearly(rng)
        answer: Any = drafts.check(desk, Asked(ANA, form={"document": text}))
        told = json.loads(answer.body)
        assert told["rules"] is not None or told["faults"], text
        assert all(fault["line"] and fault["field"] and fault["allowed"] for fault in told["faults"]), text
        right += not any(fault["refused"] for fault in told["faults"])
    assert 1_000 < right < 9_000  # both sides of the door are met


def test_a_draft_that_is_refused_comes_back_with_its_text_and_nothing_is_published(desk: Desk) -> None:
    client = TestClient(build_app(desk, {role: role for role in ROLES}), follow_redirects=False)
    bearer = {"Authorization": "Bearer merchandiser"}
    for form, told in (
        ({"document": '{"rules": [{"id": "<b>"}]}', "why": "x"}, "letters, digits"),
        ({"document": json.dumps(PIN), "why": " "}, "needs a reason"),
        ({"document": json.dumps(PIN | {"version": 7}), "why": "x"}, "made from version 7"),
        ({"document": "{", "why": "x"}, "JSON"),
        ({"why": "x"}, "JSON"),
    ):
        page = client.post("/rules/publish", data=form, headers=bearer)
        assert page.status_code == 200 and told in page.text and 'role="alert"' in page.text
        assert "<b>" not in page.text
    assert published.read(desk.redis).version == 0
    done = client.post("/rules/publish", data={"document": json.dumps(PIN), "why": "now"}, headers=bearer)
    assert done.status_code == 303 and published.read(desk.redis).version == 1
    assert state.read_audit(desk.redis, 1)[0]["who"] == "console (merchandiser)"
    tried = client.post("/rules/shadow", data={"document": json.dumps(PIN), "why": "now"}, headers=bearer)
    assert tried.status_code == 303 and published.read(desk.redis).shadow_name
    assert client.post("/rules/shadow/end", headers=bearer).status_code == 303
    for to in ("0", ""):
        assert client.post("/rules/revert", data={"to": to}, headers=bearer).status_code == 303
    wrong = client.post("/rules/revert", data={"to": "99"}, headers=bearer)
    assert wrong.status_code == 409 and "99 is not kept" in wrong.text


def test_the_preview_has_the_list_before_and_after_with_titles_as_text(desk: Desk) -> None:
    form = {"document": json.dumps(PIN), "surface": "homepage_hero"}
    found: Any = drafts.preview(desk, Asked(ANA, form=form))
    assert found["rows"][0]["after"]["item_id"] == "item-11" and found["rows"][0]["after"]["rule"] == "hero"
    assert found["rows"][0]["before"]["item_id"] != "item-11"
    client = TestClient(build_app(desk, {role: role for role in ROLES}))
    bearer = {"Authorization": "Bearer admin"}
    text = client.post("/rules/preview", data=form, headers=bearer).text
    assert "Title &lt;of&gt; item-11" in text and "Title <of>" not in text
    picture = client.get("/picture/item-7", headers=bearer)
    assert (
        picture.headers["content-type"].startswith("image/svg")
        and "sandbox" in picture.headers["content-security-policy"]
    )
    assert client.get("/picture/%3Cscript%3E", headers=bearer).status_code == 200


def test_a_campaign_to_come_is_seen_as_it_will_be_by_the_clock_of_the_shop(desk: Desk) -> None:
    window = {"from": "2023-12-01T00:00:00+01:00", "until": "2023-12-27T00:00:00+01:00"}
    rules = [*PIN["rules"], {"id": "sold", "do": {"floor": {"stock": 1}}}]
    rules[0] = rules[0] | {"when": window}
    form = {"document": json.dumps({"rules": rules}), "surface": "homepage_hero"}
    assert "is over" in str(fittings.checked(desk, form["document"])[1])  # by the wall clock
    desk.redis.set(APPLIED_TS, NOW)
    workers.write(desk.redis, workers.Report("m:1", replays=True), 60)
    assert workers.now(desk.redis) == NOW and "is over" not in str(
        fittings.checked(desk, form["document"])[1]
    )
    client = TestClient(build_app(desk, {role: role for role in ROLES}))
    bearer = {"Authorization": "Bearer merchandiser"}
    page = client.post("/rules/preview", data=form, headers=bearer).text
    assert "as of 2023-11-30 23:00" in page and 'class="tag accent">hero' in page
    assert "2023-11-14 22:13" in client.get("/rules/draft", headers=bearer).text


def test_a_page_of_the_lab_without_a_logged_answer_says_so(desk: Desk) -> None:
    client = TestClient(build_app(desk, {role: role for role in ROLES}))
    page = client.get("/rules/lab", headers={"Authorization": "Bearer viewer"})
    assert page.status_code == 200 and "No answer of this release" in page.text


def test_a_preview_is_for_whom_the_stores_know_by_the_id_that_was_typed(desk: Desk) -> None:
    typed = fittings.asked_for({"user_id": " U1 ", "session_id": "s1"})
    known = persons()
    assert (typed.user_id, typed.session_id) == (known.of("U1"), known.of("s1")) != ("U1", "s1")
    assert fittings.asked_for({"user_id": typed.user_id}).user_id == typed.user_id  # as the list offers it
