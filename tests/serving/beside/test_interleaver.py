"""Two releases of real parts in one list: pins, caps, who is left out, what is shown where it fails."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from shops import tiny_bundle
from shops.rules import HERO, ITEMS, NOW, N, steering
from shops.storefront import StillFeatures, act, metric

from serving.beside import trial
from serving.beside.draft import FIRST, NOBODY, SECOND
from serving.beside.interleaver import Interleaver, Mixture, Rival, undrawn
from serving.beside.trial import INTERLEAVE, InterleaveParams, Trial
from serving.cascade.queueing import ARRIVED, Rung
from serving.flags import flag_versions
from serving.flags.flag_document import parse
from serving.flags.flagbook import Flagbook
from serving.live.seen import Seen, treated
from serving.pipeline import Bundle, recommend, visitor_of
from serving.release import bundle, state
from serving.release.loaded import Current, Loaded
from serving.release.state import Release, RolloutError, RolloutState
from serving.stages.steering import UNSTEERED, Steering
from serving.types import NO_ROWS, Request

PARAMS = InterleaveParams(share=0.5, hours=1.0, within_ms=50.0, preference=0.1)
OLD, NEW = Release("old", "o"), Release("new", "n")
TRIAL = Trial(NEW, 0.5, 0, "old", "salt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bundle, Bundle]]:
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(home))  # compiled rankers go below it
        yield bundle.load(tiny_bundle.make(home, N)), bundle.load(tiny_bundle.make(home, N, seed=1))


class Bench:
    """An interleaver whose rival stands, and what it complained about."""

    def __init__(self, pair: tuple[Bundle, Bundle], within_ms: float = 1e6) -> None:
        self.mine, other = pair
        params = replace(PARAMS, within_ms=within_ms)
        nothing: Any = None
        self.interleaver = Interleaver(nothing, nothing, lambda *_: UNSTEERED, params)
        self.rival = Rival(Loaded(other, StillFeatures(ITEMS)), TRIAL)
        self.complaints: list[tuple[str, Exception]] = []

    def mixed(self, request: Request = HERO, rules: Steering = UNSTEERED, **trial: Any) -> Mixture | None:
        visitor = visitor_of(request, NOW, None, None)
        served = recommend(request, undrawn(self.mine), visitor, ITEMS, rules)
        rival = self.rival._replace(trial=replace(self.rival.trial, **trial))
        asked = rival, request, visitor, ITEMS, rules, served, self.mine
        return self.interleaver.mixed(*asked, lambda part, error: self.complaints.append((part, error)))


def ids(mixture: Mixture | None) -> list[str]:
    assert mixture
    return [slot.item_id for slot in mixture.served.slots]


def test_both_are_in_the_list_each_item_once_in_its_order_and_asked_again_it_is_the_same(pair: Any) -> None:
    bench = Bench(pair)
    visitor = visitor_of(HERO, NOW, None, None)
    lists = {
        team: [slot.item_id for slot in recommend(HERO, undrawn(of), visitor, ITEMS).slots]
        for team, of in zip((FIRST, SECOND), pair, strict=True)
    }
    found = bench.mixed()
    assert found and found.told() == {"rival": pair[1].digest, "teams": found.teams}
    shown, teams = ids(found), Counter(found.teams)
    assert len(set(shown)) == len(shown) == len(found.teams) == 12
    assert [slot.slot for slot in found.served.slots] == list(range(12))
    assert teams[FIRST] and teams[SECOND] and abs(teams[FIRST] - teams[SECOND]) <= 1
    for team, of in lists.items():
        places = [of.index(item) for item, one in zip(shown, found.teams, strict=True) if one == team]
        assert places == sorted(places)
    assert (found.served.propensity, found.served.explored) == (1.0, None)
    assert ids(bench.mixed()) == shown
    others = {tuple(ids(bench.mixed(salt=f"{at}"))) for at in range(20)}
    assert len(others) > 5  # whose slots are whose is secret
    assert not bench.complaints


def test_pins_stand_in_their_slots_and_belong_to_nobody(pair: Any) -> None:
    rules = steering({"pin": {"items": ["item-7", "item-8"], "slots": [0, 3]}})
    found = Bench(pair).mixed(rules=rules)
    assert found and (ids(found)[0], ids(found)[3]) == ("item-7", "item-8")
    assert found.teams[0] == found.teams[3] == NOBODY and len(set(ids(found))) == 12
    assert found.served.slots[0].rule == "r0"


def test_caps_hold_over_the_mixture_or_the_champion_stands_alone(pair: Any) -> None:
    rules = steering({"at_most": {"per": "category", "slots": 3}})
    for salt in map(str, range(20)):
        found = Bench(pair).mixed(rules=rules, salt=salt)
        if found:
            kinds = Counter(int(ITEMS.category[ITEMS.row[item]]) for item in ids(found))
            assert max(kinds.values()) <= 3 and len(ids(found)) == 12


def test_a_second_list_that_would_be_late_is_not_made(pair: Any) -> None:
    bench, late = Bench(pair, within_ms=15.0), {"stream": INTERLEAVE, "outcome": "late"}
    before = metric("endcap_beside_total", **late)
    token = ARRIVED.set(time.perf_counter() - 0.02)
    try:
        assert bench.mixed() is None
    finally:
        ARRIVED.reset(token)
    assert metric("endcap_beside_total", **late) == before + 1
    assert not bench.complaints


def test_a_rival_that_fails_leaves_the_champion_alone_and_is_complained_about(pair: Any) -> None:
    bench = Bench(pair)
    broken = replace(pair[1], ranker=None)
    bench.rival = bench.rival._replace(loaded=Loaded(broken, StillFeatures(ITEMS)))
    assert bench.mixed() is None and bench.complaints[0][0] == "interleaving"


def test_only_shoppers_of_the_champion_outside_any_canary_are_drawn_and_stay_drawn(pair: Any) -> None:
    interleaver, loaded = Bench(pair).interleaver, Loaded(pair[0], StillFeatures(ITEMS))
    rival = Rival(Loaded(pair[1], StillFeatures(ITEMS)), replace(TRIAL, champion=pair[0].digest))
    alone = Current(RolloutState(1, OLD), loaded, None)
    assert interleaver.rival(alone, "champion", "u") is None  # nothing is interleaved yet
    interleaver._rival = rival
    drawn = [interleaver.rival(alone, "champion", f"u{at}") is not None for at in range(2000)]
    assert sum(drawn) / 2000 == pytest.approx(0.5, abs=0.05)
    assert drawn == [interleaver.rival(alone, "champion", f"u{at}") is not None for at in range(2000)]
    unit = f"u{drawn.index(True)}"
    canary = Current(RolloutState(2, OLD, NEW, percent=10), loaded, loaded)
    assert interleaver.rival(alone, "holdout", unit) is None
    assert interleaver.rival(alone, "champion", None) is None
    assert interleaver.rival(canary, "champion", unit) is None
    interleaver._rival = rival._replace(trial=TRIAL)  # another champion serves than it began with
    assert interleaver.rival(alone, "champion", unit) is None


def test_it_begins_and_ends_in_redis_with_a_secret_salt_and_its_audit(redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url) as client:
        state.install(client, OLD, act())
        begun = trial.begin(client, NEW, PARAMS, act("see"), INTERLEAVE)
        assert trial.read(client, INTERLEAVE) == begun and begun.champion == "old"
        assert trial.read(client) is None  # the shadow is another matter
        assert 0 < client.ttl(INTERLEAVE) <= 3600 and begun.salt not in repr(begun)
        with pytest.raises(RolloutError, match="interleave: old is the champion"):
            trial.begin(client, OLD, PARAMS, act(), INTERLEAVE)
        assert trial.end(client, act("enough"), INTERLEAVE) == begun
        entries = state.read_audit(client)[:2]
        assert [one["what"] for one in entries] == ["end_interleave", "start_interleave"]
        assert entries[1]["numbers"] == {"share": 0.5, "champion": "old"} and begun.salt not in str(entries)
        state.start_canary(client, state.present(client), NEW, 10, "trial", act())
        with pytest.raises(RolloutError, match="is on trial at 10 %"):
            trial.begin(client, NEW, PARAMS, act(), INTERLEAVE)


def test_a_worker_follows_it_and_one_that_cannot_be_loaded_is_in_no_list(redis_url: str, pair: Any) -> None:
    loaded: list[Release | None] = []

    async def load(wanted: Release | None) -> Loaded | None:
        loaded.append(wanted)
        return Loaded(pair[1], StillFeatures(ITEMS)) if wanted == NEW else None

    with redis.Redis.from_url(redis_url) as client:
        state.install(client, OLD, act())
        interleaver = Interleaver(client, load, lambda *_: UNSTEERED, PARAMS)
        trial.begin(client, NEW, PARAMS, act(), INTERLEAVE)
        asyncio.run(interleaver.poll())
        assert interleaver._rival and interleaver._rival.trial.release == NEW
        trial.begin(client, Release("damaged", "d"), PARAMS, act(), INTERLEAVE)
        asyncio.run(interleaver.poll())
        assert interleaver._rival is None
        trial.end(client, act(), INTERLEAVE)
        asyncio.run(interleaver.poll())
    assert loaded == [NEW, Release("damaged", "d"), None]


def test_a_list_that_is_part_of_an_experiment_is_not_interleaved_whichever_its_variant(
    redis_url: str, pair: Any
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        variants = [{"name": "control"}, {"name": "varied", "do": {"trade_off": 0.5}}]
        flag = {"key": "calm", "status": "running", "audience": {"surface": ["homepage_hero"]}}
        draft = parse(orjson.dumps({"flags": [flag | {"variants": variants}]}))
        flag_versions.publish(client, draft, act(), flag_versions.read(client))
        flags = Flagbook(client, lambda sets: None)
        asyncio.run(flags.poll())
    rival = Bench(pair).rival
    seen = Seen("champion", pair[0], 1, NOW, ITEMS, NO_ROWS, None, 0.0, Rung.LIVE, rival=rival)
    for number in range(20):
        request = replace(HERO, session_id=f"s{number}")
        assert treated(flags, request, seen, print).rival is None
        assert treated(flags, replace(request, surface="cart_upsell"), seen, print).rival == rival


def test_a_share_of_nobody_is_refused() -> None:
    with pytest.raises(Exception, match=r"interleave\.share: 0\.0 is not allowed; allowed: above 0, up to 1"):
        replace(PARAMS, share=0.0)
