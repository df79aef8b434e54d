"""Who tries to decide a canary over real HTTP: made-up ids, foreign clicks, greedy clicks, empty lists."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from shops import tiny_bundle
from shops.canary import FEEDBACK, PARAMS
from shops.storefront import act, release_of

from feature_repo.eventlog.keys import stream_key
from feature_repo.params import load
from feature_repo.persons.pseudonyms import Persons
from monitoring.experiment.guard import Decision, Move, Step
from monitoring.experiment.watch import Guard
from pipelines.stream.apply import Arrival, parse
from serving.access.policy import Access
from serving.release import state as control
from serving.release.router import CHALLENGER, CHAMPION, assign
from serving.release.state import RolloutState

if TYPE_CHECKING:
    from shops.service import Service

pytest_plugins = ("shops.service",)

pytestmark = pytest.mark.fault
LADDER = replace(PARAMS, steps=(Step(10, 10_000), Step(50, 10_000), Step(100, 10_000)))
PATIENCE_S = 90
SETTLED_S = 1.0


def until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Attacker:
    """One client with as many made-up sessions as it likes."""

    def __init__(self, service: Service, canary: RolloutState) -> None:
        self.service, self.canary, self.redis = service, canary, service.redis()
        self.http = httpx.Client(base_url=service.url, timeout=15)
        self.answers: dict[str, dict[str, Any]] = {}
        self.guard = Guard(self.redis, LADDER, FEEDBACK, lambda _: None)
        self.texts: list[str] = []

    def ask(self, session: str, **fields: Any) -> str:
        """The arm of a session, as the answer tells it."""
        body = {"surface": "homepage_hero", "session_id": session, **fields}
        answer = self.http.post("/v1/recommend", json=body)
        assert answer.status_code == 200
        self.texts.append(answer.text)
        self.answers[session] = answer.json()
        return self.answers[session]["arm"]

    def click(self, list_of: str, session: str) -> None:
        """Every item of the list that `list_of` got, clicked by `session`."""
        answer = self.answers[list_of]
        click = {"type": "click", "session_id": session, "request_id": answer["request_id"]}
        clicks = [click | {"item_id": slot["item_id"]} for slot in answer["items"]]
        assert self.http.post("/v1/events", json={"events": clicks}).status_code == 202

    def look(self, lists: int) -> Decision:
        """The guard's look once it has `lists` more in its stream."""
        until(lambda: self.redis.xlen("endcap:exposures") >= lists, "the lists were not logged")
        look = self.guard.look(0)
        assert look is not None
        return look.decision

    def lists(self) -> int:
        """How many were logged, once no more come: an answer is logged a little after it was given."""
        seen, still = -1, time.monotonic()
        while time.monotonic() < still + SETTLED_S:
            if (now := self.redis.xlen("endcap:exposures")) != seen:
                seen, still = now, time.monotonic()
            time.sleep(0.05)
        return seen


@pytest.fixture
def attacker(service: Service) -> Iterator[Attacker]:
    """On a canary at 10 % that every worker serves."""
    other = release_of(service.home, tiny_bundle.make(service.home, seed=1))
    with service.redis() as redis:
        installed = control.present(redis)
        canary = control.start_canary(redis, installed, other, 10, "f" * 12 + "-1", act(), 600.0)
        found = Attacker(service, canary)
        sessions = iter(range(10**6))
        until(lambda: found.ask(f"early-{next(sessions)}") == CHALLENGER, "the canary is not served")
        yield found
        state = control.present(redis)
        if state.challenger:
            control.rollback(redis, state, act())
        until(lambda: all(found.ask(f"late-{next(sessions)}") == CHAMPION for _ in range(30)), "it serves on")
        found.http.close()


def test_nobody_who_knows_the_experiment_picks_the_arm_and_bends_the_split(attacker: Attacker) -> None:
    """The attack that rolled canaries back: 150 sessions that a public salt puts into the challenger."""
    canary, before = attacker.canary, attacker.lists()
    picked = [f"m{i}" for i in range(4000) if assign(f"m{i}", canary.experiment, 0.0, 10) == CHALLENGER][:150]
    arms = [attacker.ask(session) for session in picked]
    assert 0 < arms.count(CHALLENGER) < 45
    decision = attacker.look(before + 150)
    assert decision.move is Move.HOLD and decision.srm_evidence < 100


def test_who_learned_the_arm_in_one_step_does_not_bend_the_next(attacker: Attacker) -> None:
    everything = [slot["item_id"] for slot in attacker.answers.popitem()[1]["items"]]
    asked = {f"k{i}": attacker.ask(f"k{i}", exclude=everything) for i in range(600)}
    known = [session for session, arm in asked.items() if arm == CHALLENGER]
    assert len(known) > 20
    control.advance(attacker.redis, attacker.canary, 50, act())
    honest = iter(range(10**6))
    until(lambda: [attacker.ask(f"h{next(honest)}") for _ in range(20)].count(CHALLENGER) > 5, "not served")
    before = attacker.lists()
    assert {attacker.ask(session) for session in known * 3} == {CHALLENGER}  # sticky
    for session in known:  # and they look alive
        attacker.click(session, session)
    decision = attacker.look(before + 3 * len(known))
    assert decision.move is Move.HOLD
    assert decision.srm_evidence < 100 and "split" not in decision.reason


def test_an_excluded_catalogue_is_not_the_releases_emptiness(attacker: Attacker) -> None:
    rows = attacker.http.post("/v1/recommend", json={"surface": "homepage_hero", "limit": 100}).json()
    catalogue = [slot["item_id"] for slot in rows["items"]]
    before = attacker.lists()
    arms = [attacker.ask(f"e{i}", exclude=catalogue) for i in range(200)]
    assert not attacker.answers["e0"]["items"] and CHALLENGER in arms
    decision = attacker.look(before + 200)
    until(lambda: control.read_health(attacker.redis, CHALLENGER).requests > 5, "no health")
    assert control.read_health(attacker.redis, CHALLENGER).empty == 0
    assert decision.move is Move.HOLD


def test_clicks_of_another_session_count_for_nothing(attacker: Attacker) -> None:
    before = attacker.lists()
    arms = {f"v{i}": attacker.ask(f"v{i}") for i in range(300)}
    for session, arm in arms.items():
        if arm == CHALLENGER:
            attacker.click(session, "one foreign session")
    decision = attacker.look(before + 300)
    assert (decision.ctr, decision.alarm) == (0.0, "")


def test_greedy_clicks_of_own_sessions_are_an_alarm_and_no_evidence(attacker: Attacker) -> None:
    before = attacker.lists()
    arms = {f"g{i}": attacker.ask(f"g{i}") for i in range(400)}
    for session, arm in arms.items():
        if arm == CHALLENGER:
            attacker.click(session, session)
    decision = attacker.look(before + 400)
    assert decision.move is Move.HOLD
    assert "of the challenger's" in decision.alarm and "click more than people do" in decision.reason
    assert decision.ctr < 0.05
    until(
        lambda: "endcap_guard_alarm 1.0" in attacker.http.get("/metrics").text,
        "the service does not tell the alarm",
    )


def test_ten_thousand_forged_clicks_move_neither_the_verdict_nor_an_item(attacker: Attacker) -> None:
    """Made up, bent, foreign, repeated, and without a list from ever new visits behind one address."""
    before = attacker.lists()
    for number in range(60):
        attacker.ask(f"f{number}")
    verdict = attacker.look(before + 60)
    lists = [attacker.answers[f"f{number}"] for number in range(60)]
    item = lists[0]["items"][0]["item_id"]
    clicks: list[dict[str, Any]] = []
    for number in range(2000):
        served, own = lists[number % 60], f"f{number % 60}"
        shown = served["items"][number % len(served["items"])]["item_id"]
        signed = served["request_id"]
        bent = signed[:30] + ("B" if signed[30] == "A" else "A") + signed[31:]
        click = {"type": "click", "session_id": own, "request_id": served["request_id"], "item_id": shown}
        clicks += [
            click | {"request_id": f"{number:032x}"},
            click | {"request_id": bent},
            click | {"session_id": f"x{number}"},
            click | {"item_id": "no-item-of-it"},
            {"type": "click", "session_id": f"y{number}", "item_id": item},
        ]
    reasons: Counter[str] = Counter()
    for start in range(0, len(clicks), 1000):
        body = {"events": clicks[start : start + 1000]}
        answer = attacker.http.post("/v1/events", json=body, headers={"x-forwarded-for": "203.0.113.9"})
        assert answer.status_code == 202, answer.text
        reasons.update(answer.json()["uncounted"])
    assert reasons["faster_than_people"] == 2000 - load("access", Access).counting.address_deeds_of_item
    # A request id holds two bytes of each item: one list in 5,461 takes a stranger for one of its own.
    mistaken = bool(reasons["repeated"])
    assert reasons["not_shown"] + reasons["repeated"] + mistaken == 2000, reasons
    assert sum(reasons.values()) == len(clicks) - 200 - mistaken, reasons
    honest = {Persons(os.environ["ENDCAP_PERSON_KEY"].encode()).of(f"y{n}") for n in range(2000)}
    raws = [entry[b"event"] for p in range(4) for _, entry in attacker.redis.xrange(stream_key(p))]
    arrived = [one.event for one in map(parse, raws) if isinstance(one, Arrival)]
    assert sum(one.counted and one.item_id == item and one.session_id in honest for one in arrived) == 200
    decision = attacker.look(0)
    assert (decision.move, decision.ctr, decision.champion_ctr) == (
        verdict.move,
        verdict.ctr,
        verdict.champion_ctr,
    )
    assert (decision.alarm, decision.srm_evidence) == (verdict.alarm, verdict.srm_evidence)


def test_the_salt_is_in_no_answer_log_metric_or_audit(attacker: Attacker) -> None:
    attacker.ask("d1")
    attacker.look(0)
    salt = control.present(attacker.redis).salt
    told = [*attacker.texts, attacker.http.get("/metrics").text, attacker.service.log.read_text()]
    told += [str(control.read_audit(attacker.redis)), str(attacker.redis.xrange("endcap:looks"))]
    told += [str(attacker.redis.xrevrange("endcap:exposures", count=1000))]
    assert len(salt) == 32 and not [text for text in told if salt in text]
    assert control.present(attacker.redis).experiment in str(attacker.redis.xrange("endcap:looks"))


def test_a_canary_whose_guard_is_gone_steps_back_with_one_entry(service: Service) -> None:
    other = release_of(service.home, tiny_bundle.make(service.home, seed=1))
    with service.redis() as redis:
        canary = control.start_canary(redis, control.present(redis), other, 50, "alone", act(), 3.0)
        attacker, sessions = Attacker(service, canary), iter(range(10**6))
        until(lambda: attacker.ask(f"a{next(sessions)}") == CHALLENGER, "the canary is not served")
        until(lambda: control.present(redis).challenger is None, "nobody ended the canary")
        arms = [attacker.ask(f"a{next(sessions)}") for _ in range(50)]
        assert CHALLENGER not in arms
        entry = control.read_audit(redis, count=1)[0]
        assert entry["who"] == "service" and entry["why"].startswith("no living guard for ")
        time.sleep(2)
        assert entry == control.read_audit(redis, count=1)[0]
        assert control.present(redis).version == entry["version"] == canary.version + 1
