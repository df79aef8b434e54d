"""Lists of one page, with rules: none holds what another has, and none takes what is pinned behind it."""

from __future__ import annotations

from serving.live.seen import apart
from serving.stages.steering import UNSTEERED, Pin, Steering
from serving.types import Answer, Request, Slot

IDS = [f"item-{i}" for i in range(9)]
PAGE = (Request("homepage_hero", limit=3), Request("cart_upsell", items=("item-8",), limit=3))
PINS = Steering(1, ("r",), pins=(Pin(0, 5, "r"), Pin(7, 6, "r")))


def answer(*items: str) -> Answer:
    slots = tuple(Slot(item, slot, 0.0, "ease") for slot, item in enumerate(items))
    return Answer("id", "homepage_hero", slots, "champion", "b", "live", None, None, 0.0)


def test_the_first_list_leaves_what_is_pinned_in_a_slot_behind_it_and_what_the_page_names() -> None:
    first = apart(PAGE, (UNSTEERED, PINS), 0, [], IDS)
    assert first.exclude == ("item-8", "item-5")  # item-6 is pinned to a slot that the list does not have
    second = apart(PAGE, (UNSTEERED, PINS), 1, [answer("item-1", "item-2")], IDS)
    assert second.exclude == ("item-1", "item-2")


def test_of_two_lists_that_pin_a_product_the_first_has_it() -> None:
    assert apart(PAGE, (PINS, PINS), 0, [], IDS).exclude == ("item-8",)


def test_a_list_alone_bars_nothing_of_its_own() -> None:
    assert apart(PAGE[:1], (PINS,), 0, [], IDS) is PAGE[0]
