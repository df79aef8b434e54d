"""Session continuation as the gate asks it (pipelines/protocol): what was known, what was wanted, our lists.

Every model is asked with the same history and may list the same items: nothing sold out or not yet on sale,
nothing of this visit's history, its cart or its purchases, and nothing bought within the window that the shop
has learned (`bought_days`). `unbarred` leaves that window out, so that what it costs can be seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from peers.contract import Mask, Past, Rows, Visits

from feature_repo.assemble.visitor import history
from feature_repo.params import load
from pipelines.blend.order import SINGLE
from pipelines.protocol.chosen import OWN, RANKER, Order, chosen, learned, settings
from pipelines.protocol.known import Known, answers
from pipelines.protocol.queries import Query
from pipelines.release.evaluate import release
from serving.pipeline import Bundle, recommend
from serving.stages.diversify import Diversify
from serving.stages.eligibility import eligibility
from serving.stages.odds import UNWEIGHTED, Clicks
from training.dataset import read_catalogue, read_contacts

K = 12
Bits = npt.NDArray[np.uint8]
WHOLE, RANKED, RETRIEVED = "endcap, whole", "endcap, ranker alone", "endcap, retrieval alone"
OWN_PARTS = {f"own {name}": name for name in SINGLE}


class Case(NamedTuple):
    """One query as every model is asked it; `ours` lists of our orders, rows (<= K,)."""

    query: Query
    past: Past
    wanted: frozenset[int]
    many: int
    bits: Bits  # of the mask of items that may be listed
    unbarred_bits: Bits
    ours: Mapping[str, Rows]
    seconds: Mapping[str, float]  # CPU of each of our lists

    def eligible(self, n: int, barred: bool = True) -> Mask:
        """Which of the `n` items may be listed."""
        bits = self.bits if barred else self.unbarred_bits
        return np.unpackbits(bits, count=n).astype(np.bool_)


def visits_before(cut: datetime) -> Visits:
    """Visits with a contact before `cut`, by the time of their last one; repeats in a row are one."""
    catalogue = read_catalogue()
    contacts = read_contacts(catalogue, cut).by_session()
    new = np.ones(len(contacts), np.bool_)
    new[1:] = np.diff(contacts.session) != 0
    kept = new.copy()
    kept[1:] |= np.diff(contacts.item) != 0
    visit = (np.cumsum(new) - 1)[kept]
    items, last = contacts.item[kept].astype(np.int64), np.zeros(visit[-1] + 1, np.int64)
    np.maximum.at(last, visit, contacts.ts[kept])
    parts = np.split(items, np.flatnonzero(np.diff(visit)) + 1)
    return Visits.of([parts[v] for v in np.argsort(last, kind="stable")], len(catalogue))


def our_orders() -> dict[str, Bundle]:
    """The release candidate as it serves, as its retrieval and its ranker alone, and as each source alone.

    Alone: by the scores of their own, which attraction does not move.
    """
    diversity, retrieve = load("diversify", Diversify), learned()

    def alone(name: str) -> Order:
        return settings(name, retrieve, diversity, UNWEIGHTED)

    whole = chosen(diversity, load("clicks", Clicks))
    orders = {WHOLE: whole, RANKED: alone(RANKER), RETRIEVED: alone(OWN)}
    found = {told: release(order) for told, order in orders.items()}
    for told, name in OWN_PARTS.items():
        order = alone(name)
        found[told] = replace(found[RETRIEVED], retrieve=order.retrieve, diversify=order.diversify)
    return found


def ask(
    queries: Sequence[Query], orders: Mapping[str, Bundle], ids: Sequence[str], processes: int, told: str
) -> list[Case]:
    """What is known at every query, with the lists of `orders` (none where peers choose settings)."""
    days = learned().bought_days
    row = {item: at for at, item in enumerate(ids)}

    def answer(known: Known) -> Case:
        query, request, visitor, matrix = known
        lists, seconds = {}, {}
        for name, bundle in orders.items():
            began = time.process_time()
            served = recommend(request, bundle, visitor, matrix)
            seconds[name] = time.process_time() - began
            lists[name] = np.array([row[slot.item_id] for slot in served.slots], np.int64)
            if name == RANKED:  # before diversity
                lists[name] = served.ranked.rows[:K].copy()
        past = history(visitor, matrix)
        barred, free = (np.packbits(eligibility(request, visitor, matrix, d).mask) for d in (days, 0.0))
        wanted = frozenset(row[item] for item in query.relevant if item in row)
        return Case(
            query, Past(past.rows, past.current), wanted, len(query.relevant), barred, free, lists, seconds
        )

    return list(answers(queries, ids, K, told, answer, processes))
