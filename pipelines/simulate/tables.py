"""From what happened in the simulated sessions to the canonical event tables that a shop would export."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.clock import micros
from feature_repo.events import SCHEMA
from pipelines.simulate.arrivals import Sessions
from pipelines.simulate.departments import DEPARTMENTS, STYLES
from pipelines.simulate.journeys import KINDS, SURFACES
from pipelines.simulate.world import World


def names_of(
    world: World, sessions: Sessions, late_login_share: float, rng: np.random.Generator
) -> np.ndarray:
    """(S,) microseconds from the session's start until its user_id is known, infinite for never.

    Known shoppers come with a cookie; `late_login_share` of their sessions start nameless and log in later.
    """
    known = sessions.shopper < len(world.shoppers.user_ids)
    late = rng.random(len(sessions)) < late_login_share
    login = np.where(late, rng.lognormal(np.log(60e6), 1.0, len(sessions)), 0.0)
    return np.where(known, login, np.inf)


def event_tables(
    log: dict[str, np.ndarray],
    world: World,
    sessions: Sessions,
    start: datetime,
    named_after: np.ndarray,
    late_share: float,
    rng: np.random.Generator,
) -> tuple[pa.Table, pa.Table]:
    """(events, impressions) in feature_repo.events.SCHEMA, sorted by (event_ts, event_id).

    `log` is Diary.finish(), in order of time, and event ids count up in that order. `late_share` of the
    events reach the shop minutes after they happened, the others within seconds.
    """
    shop, people = world.shop, world.shoppers
    kind, session, item, page = log["kind"], log["session"], log["item"], log["page"]
    shopper, n = sessions.shopper[session], len(kind)
    event_us = micros(start) + log["at"]
    late = rng.random(n) < late_share
    delay = np.where(late, rng.exponential(1800e6, n), rng.lognormal(np.log(0.8e6), 0.7, n))
    of_carts = ("add_to_cart", "remove_from_cart", "purchase_completed")
    bought = np.isin(kind, [KINDS.index(name) for name in of_carts])
    search = log["surface"] == SURFACES.index("search")
    shelf = np.where(search, -1, log["surface"])
    named = log["at"] - sessions.start_us[session] >= named_after[session]
    columns = {
        "event_id": _numbered("e", np.arange(n), 9),
        "event_ts": pa.array(event_us, pa.int64()),
        "created_ts": pa.array(event_us + delay.astype(np.int64), pa.int64()),
        "type": _pick(KINDS, kind),
        "user_id": _pick(people.user_ids, np.where(named, shopper, -1)),
        "session_id": _numbered("s", session, 7),
        "item_id": _pick(shop.item_ids, item),
        "surface": _pick(SURFACES, shelf),
        "request_id": _numbered("r", np.where(search, -1, page), 8),
        "slot": _count(np.where((shelf >= 0) & (item >= 0), log["position"] - 1, -1)),
        "list_name": _list_names(log, world),
        "position": _count(log["position"]),
        "price": pa.array(shop.price[item], mask=item < 0),
        # A session buys what it put into the cart: the number must not change between the two.
        "quantity": _count(np.where(bought, 1 + ((session * 7919 + item) % 11 == 0), -1)),
        "query": _queries(log, world, sessions),
        "device": _pick(people.device, shopper),
        "country": _pick(people.country, shopper),
        "channel": _pick(sessions.channel, session),
        "consent": pa.array(people.consent[shopper]),
    }
    table = pa.table([columns[f.name].cast(f.type) for f in SCHEMA], schema=SCHEMA)
    shown = pa.array(kind == KINDS.index("impression"))
    return table.filter(pc.invert(shown)), table.filter(shown)


def _pick(names: np.ndarray | tuple[str, ...], code: np.ndarray) -> pa.Array:
    """names[code] as text, null where `code` is negative."""
    return pa.array(names, pa.string()).take(pa.array(code, mask=code < 0))


def _numbered(prefix: str, number: np.ndarray, digits: int) -> pa.Array:
    """Ids such as "e000000007", null where `number` is negative."""
    text = pc.utf8_lpad(pa.array(number, pa.int64(), mask=number < 0).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, text, "")


def _count(number: np.ndarray) -> pa.Array:
    return pa.array(number, mask=number < 0)


def _list_names(log: dict[str, np.ndarray], world: World) -> pa.Array:
    """The category path on category pages, the surface's own name elsewhere."""
    surface, item = log["surface"], log["item"]
    on_category = (surface == SURFACES.index("category_sort")) & (item >= 0)
    code = np.where(on_category, len(SURFACES) + world.shop.leaf[item], surface)
    return _pick(np.concatenate([SURFACES, world.shop.leaf_paths]), np.where(item >= 0, code, -1))


def _queries(log: dict[str, np.ndarray], world: World, sessions: Sessions) -> pa.Array:
    """What was typed, for example "rustic saucepan"; the words change from page to page."""
    asked = log["kind"] == KINDS.index("search")
    leaves = [leaf for department in DEPARTMENTS for leaf in department.leaves]
    text = [
        f"{STYLES[style].adjectives[page % 3]} {leaves[leaf].nouns[page % len(leaves[leaf].nouns)]}"
        for style, leaf, page in zip(
            sessions.style[log["session"][asked]], log["query"][asked], log["page"][asked], strict=True
        )
    ]
    code = np.full(len(asked), -1)
    code[asked] = np.arange(len(text))
    return _pick(np.array(text, dtype=object), code)
