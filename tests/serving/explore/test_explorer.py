"""Slots for unseen products: as often as the log says, capped, to both arms alike, never to the holdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from redis import Redis
from shops import tiny_bundle
from shops.rules import ITEMS, NOW, steering
from shops.storefront import Shop, act, ask, items, make_home, open_shop, release_of

from feature_repo.errors import ParamsError
from serving.explore import budget
from serving.explore.chance import draw
from serving.explore.explorer import SEEK, Explorer
from serving.explore.offer import UNSEEN, Explore, Offer
from serving.pipeline import Bundle, recommend, visitor_of
from serving.release import bundle, state
from serving.stages.steering import UNSTEERED, Steering
from serving.types import Request, Slot

ON = Explore(share=0.4, per_day=1000, surfaces=("homepage_hero",), lease=500, poll_s=1.0)
OFFERED = ["item-50", "item-55", "item-57", "item-58"]
SOLD_OUT = "item-59"
VISITS = [f"visit {number}" for number in range(120)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def release(home: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bundle]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    yield bundle.load(home[1])


def offered(release: Bundle, number: int, held: Steering = UNSTEERED, **fields: Any) -> Any:
    request = Request("homepage_hero", session_id=f"visit {number}", **fields)
    visitor = visitor_of(request, NOW, None, None)
    drawn = draw(request, visitor, SEEK)
    assert drawn is not None
    offer = Offer(0.4, np.sort(ITEMS.rows_of([*OFFERED, SOLD_OUT])), drawn)
    return recommend(request, release, visitor, ITEMS, replace(held, offer=offer))


def test_an_item_stands_last_as_often_as_the_logged_propensity_says(release: Bundle) -> None:
    many = 1500
    last, chance = Counter[str](), dict[str, set[float]]()
    for number in range(many):
        served = offered(release, number)
        item = served.slots[-1].item_id
        last[item] += 1
        chance.setdefault(item, set()).add(round(served.propensity, 12))
    assert all(len(chances) == 1 for chances in chance.values())  # nobody's history: one list for all
    assert sum(min(chances) for chances in chance.values()) == pytest.approx(1.0)
    for item, many_times in last.items():
        (p,) = chance[item]
        assert abs(many_times / many - p) < 4 * (p * (1 - p) / many) ** 0.5, item


def test_every_other_slot_is_what_it_was_and_nothing_stands_twice(release: Bundle) -> None:
    for number in range(60):
        request = Request("homepage_hero", session_id=f"visit {number}")
        plain = recommend(request, release, visitor_of(request, NOW, None, None), ITEMS)
        served = offered(release, number)
        assert [s.item_id for s in served.slots[:-1]] == [s.item_id for s in plain.slots[:-1]]
        assert len({slot.item_id for slot in served.slots}) == 12
        if not served.explored:
            assert served.slots == plain.slots


def test_what_may_not_be_shown_is_not_explored(release: Bundle) -> None:
    held = steering({"block": {"where": {"item_id": ["item-50"]}}})
    shown = Counter(
        slot.item_id
        for number in range(200)
        for slot in offered(release, number, held, exclude=("item-55",), cart=("item-58",)).slots
        if slot.source == UNSEEN
    )
    assert set(shown) == {"item-57"}


def test_a_pin_in_the_last_slot_stays(release: Bundle) -> None:
    held = steering({"pin": {"items": ["item-3"], "slots": [11]}})
    found = [offered(release, number, held) for number in range(40)]
    assert {served.slots[-1].item_id for served in found} == {"item-3"}
    assert {(served.propensity, served.explored) for served in found} == {(1.0, None)}


def test_a_cap_of_the_rules_holds_for_what_is_explored(release: Bundle) -> None:
    held = steering({"at_most": {"per": "category", "slots": 3}})
    for number in range(60):
        rows = ITEMS.rows_of([slot.item_id for slot in offered(release, number, held).slots])
        assert max(Counter(ITEMS.category[rows].tolist()).values()) <= 3


def test_the_budget_of_a_day_holds_over_all_workers(redis_url: str) -> None:
    redis, day = Redis.from_url(redis_url), 20_000
    redis.flushdb()
    got = [budget.take(redis, day, "homepage_hero", 20, 50) for _ in range(5)]
    assert got == [20, 20, 10, 0, 0]
    assert budget.take(redis, day, "category_sort", 20, 50) == 20
    assert budget.take(redis, day + 1, "homepage_hero", 20, 50) == 20
    assert 0 < redis.ttl(f"{budget.TAKEN}{day}") <= 172_800


@pytest.mark.parametrize("wrong", [{"share": 1.0}, {"share": -0.1}, {"surfaces": ("shelf",)}])
def test_a_setting_that_cannot_be_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=rf"explore\.{next(iter(wrong))}: .* allowed: "):
        replace(ON, **wrong)


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    publish(redis_url)
    with open_shop(*home, redis_url, explore=ON) as opened:
        yield opened


def publish(url: str) -> None:
    redis = Redis.from_url(url)
    redis.flushdb()
    budget.publish(redis, budget.OnOffer(7, tuple(OFFERED)))


def told(shop: Shop) -> list[dict[str, Any]]:
    shop.run(shop.exposures.flush)
    return [orjson.loads(fields[b"exposure"]) for _, fields in shop.redis.xrange("endcap:exposures")]


def answers(shop: Shop) -> list[dict[str, Any]]:
    return [ask(shop, user_id=None, session_id=visit) for visit in VISITS]


def test_each_product_is_shown_once_by_a_worker_with_its_chance_on_the_record(shop: Shop) -> None:
    lacking = set(OFFERED) - set(items(answers(shop)[0])[:-1])  # what a list holds anyway is not explored
    explored = [entry for entry in told(shop) if entry.get("explored")]
    assert sorted(entry["items"][-1] for entry in explored) == sorted(lacking)
    for left, entry in zip(range(len(lacking), 0, -1), explored, strict=True):
        assert entry["propensity"] == pytest.approx(ON.share / left, abs=0.2)
        assert entry["propensity"] >= ON.share / left - 1e-9
    assert "explored" not in told(shop)[-1]  # nothing is on offer any more


def test_both_arms_of_a_canary_explore_in_the_same_visits(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    arms: dict[str, list[bool]] = {}
    for percent in (0, 100):
        publish(redis_url)
        with open_shop(*home, redis_url, explore=ON) as shop:
            if percent:
                other, installed = tiny_bundle.make(home[0], seed=1), state.read(shop.redis)
                assert installed is not None
                state.start_canary(shop.redis, installed, release_of(home[0], other), 100, "trial", act())
                shop.run(shop.releases.poll)
            found = answers(shop)
        arms[found[0]["arm"]] = [answer["items"][-1]["source"] == UNSEEN for answer in found]
    assert set(arms) == {"champion", "challenger"}
    assert arms["champion"] == arms["challenger"] and any(arms["champion"])


def test_the_holdout_and_other_surfaces_explore_nothing(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    publish(redis_url)
    with open_shop(*home, redis_url, holdout=1.0, explore=ON) as shop:
        answers(shop)
        assert not any("explored" in entry for entry in told(shop))
    publish(redis_url)
    with open_shop(*home, redis_url, explore=ON) as shop:
        for visit in VISITS[:30]:
            ask(shop, user_id=None, session_id=visit, surface="category_sort")
        assert not any("explored" in entry for entry in told(shop))


def test_without_a_budget_left_lists_are_as_without_the_budget(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    publish(redis_url)
    with open_shop(*home, redis_url) as shop:
        plain = [items(answer) for answer in answers(shop)]
    publish(redis_url)
    with open_shop(*home, redis_url, explore=replace(ON, per_day=2)) as shop:
        found = answers(shop)
        assert sum(answer["items"][-1]["source"] == UNSEEN for answer in found) == 2
    same = [a == items(b) for a, b in zip(plain, found, strict=True)]
    assert same.count(False) == 2


@pytest.mark.anyio
async def test_a_new_offer_takes_the_place_of_the_old(redis_url: str) -> None:
    publish(redis_url)
    redis, days = Redis.from_url(redis_url), [20_000 * 86_400_000_000]
    explorer = Explorer(redis, ON, clock=lambda: days[0])
    await explorer.poll()
    request = Request("homepage_hero", session_id="s")
    visitor = visitor_of(request, NOW, None, None)
    first = explorer.offer(request, visitor, ITEMS)
    assert first is not None and [ITEMS.ids[row] for row in first.rows] == OFFERED
    explorer.shown("homepage_hero", [Slot("item-55", 0, 0.0, "popular")], explored=False)
    second = explorer.offer(request, visitor, ITEMS)
    assert second is not None and "item-55" not in [ITEMS.ids[row] for row in second.rows]
    budget.publish(redis, budget.OnOffer(8, ("item-1", "gone")))
    await explorer.poll()
    third = explorer.offer(request, visitor, ITEMS)
    assert third is not None and [ITEMS.ids[row] for row in third.rows] == ["item-1"]
    budget.withdraw(redis)
    await explorer.poll()
    assert explorer.offer(request, visitor, ITEMS) is None


@pytest.mark.anyio
async def test_what_one_worker_has_shown_no_other_explores_until_the_next_offer(redis_url: str) -> None:
    publish(redis_url)
    redis = Redis.from_url(redis_url)
    one, other = (Explorer(redis, ON, clock=lambda: 20_000 * 86_400_000_000) for _ in range(2))

    def left(worker: Explorer) -> list[str]:
        request = Request("homepage_hero", session_id="s")
        offer = worker.offer(request, visitor_of(request, NOW, None, None), ITEMS)
        return [ITEMS.ids[row] for row in offer.rows] if offer else []

    for worker in (one, other):
        await worker.poll()
        assert left(worker) == OFFERED
    one.shown("homepage_hero", [Slot("item-57", 11, 0.0, UNSEEN)], explored=True)
    other.shown("cart_upsell", [Slot("item-50", 3, 0.0, "popular")], explored=False)
    for _ in range(2):  # a worker hears at its next look what others told before
        await one.poll()
        await other.poll()
    assert left(one) == left(other) == ["item-55", "item-58"]
    assert redis.llen(budget.SHOWN_KEY) == 2 and 0 < redis.ttl(budget.SHOWN_KEY) <= budget.KEPT_S
    one.shown("homepage_hero", [Slot("item-55", 11, 0.0, UNSEEN)], explored=True)
    budget.publish(redis, budget.OnOffer(8, ("item-50", "item-55")))
    for worker in (other, one):
        await worker.poll()
    assert left(other) == ["item-50", "item-55"]
    assert left(one) == ["item-50"]  # it was shown: one impression is what it lacked


def test_a_look_reads_what_is_new_and_another_offer_from_its_start(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    offer, shown = budget.OnOffer(7, ("item-50",)), [f"item-{number}" for number in range(5_000)]
    budget.publish(redis, offer)
    assert budget.exchanged(redis, shown, offer, 0) == (offer, shown)

    def sent() -> int:
        return int(redis.info("stats")["total_net_output_bytes"])  # type: ignore[index]

    before = sent()
    assert budget.exchanged(redis, ("new",), offer, len(shown)) == (offer, ["new"])
    assert sent() - before < 20_000  # mostly what INFO itself says; all that was shown is 60 kB
    other = budget.OnOffer(8, ("item-51",))
    budget.publish(redis, other)
    assert budget.exchanged(redis, ("first",), offer, len(shown)) == (other, ["first"])
