"""When each surface is asked, and what was wanted then."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd

from pipelines.protocol.occasions import BACK, occasions
from pipelines.protocol.queries import Query
from serving.surfaces.craft import TRUTHS

START = datetime(2026, 1, 1, tzinfo=UTC)
US = int(START.timestamp()) * 1_000_000
KIND = {"lamp": "Lamps", "other lamp": "Lamps", "bulb": "Bulbs", "rug": None}
VISIT = [
    ("product_viewed", "lamp"),
    ("product_viewed", "rug"),
    ("product_viewed", "other lamp"),
    ("add_to_cart", "lamp"),
    ("product_viewed", "bulb"),
    ("add_to_cart", "bulb"),
]


def ask(truth: str, *visits: list[tuple[str, str]], surface: str = "pdp_fbt") -> list[Query]:
    rows = [
        (US + 1_000_000 * number + at, f"s{number}", "ann", kind, item)
        for number, one in enumerate(visits)
        for at, (kind, item) in enumerate(one)
    ]
    events = pd.DataFrame(rows, columns=["event_ts", "session_id", "user_id", "type", "item_id"])
    events[["device", "country", "channel"]] = None
    return occasions(events, surface, truth, KIND, START, None, 100, np.random.default_rng(0))


def told(queries: list[Query]) -> list[tuple[tuple[str, ...], tuple[str, ...], set[str]]]:
    return [(query.items, query.cart, set(query.relevant)) for query in queries]


def test_a_product_page_wants_the_other_item_that_is_carted_next() -> None:
    assert told(ask("next_carted", VISIT)) == [
        (("lamp",), (), {"bulb"}),
        (("rug",), (), {"lamp"}),
        (("other lamp",), (), {"lamp"}),
    ]  # the bulb's page has nothing left to want


def test_a_cart_wants_what_joins_it_later() -> None:
    assert told(ask("joined_cart", VISIT, surface="cart_upsell")) == [((), ("lamp",), {"bulb"})]


def test_similar_items_want_the_next_look_at_the_same_category() -> None:
    assert told(ask("next_of_kind", VISIT)) == [(("lamp",), (), {"other lamp"})]


def test_an_e_mail_wants_what_is_new_in_the_next_visit_after_one_of_its_kind() -> None:
    next_visit = [("product_viewed", "rug"), ("product_viewed", "vase")]
    assert told(ask("back_after_cart", VISIT, next_visit)) == [((), ("lamp", "bulb"), {"vase"})]
    assert not ask("back_after_order", VISIT, next_visit) and not ask("back_after_browse", VISIT, next_visit)


def test_a_question_stands_just_after_what_it_may_know() -> None:
    assert [query.now - US for query in ask("next_carted", VISIT)] == [1, 2, 3]


def test_where_nobody_carts_purchases_are_wanted() -> None:
    visit = [("product_viewed", "lamp"), ("purchase_completed", "bulb")]
    assert told(ask("next_carted", visit)) == [(("lamp",), (), {"bulb"})]


def test_every_truth_that_a_surface_may_name_can_be_asked() -> None:
    for truth in TRUTHS:
        assert truth.startswith(BACK) or ask(truth, VISIT)
