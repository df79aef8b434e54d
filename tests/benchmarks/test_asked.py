"""How benchmarks/quality.py asks: the same history and items for all, no answer knows of another query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import asked
import numpy as np
import pyarrow.parquet as pq
import pytest
from asked import RANKED, WHOLE, Case, ask, visits_before
from continuation import listed, ndcg_of, result_of
from peers.covisits import Covisits
from shops import tiny_bundle
from shops.small import START, open_home, random_events, write_raw

from feature_repo.clock import DAY_US, instant
from feature_repo.offline.build import main as features
from feature_repo.params import load
from pipelines.protocol.queries import Query, make_queries, product_events
from serving.pipeline import Bundle
from serving.release import bundle
from serving.stages.retrieve import Retrieve

HALF = instant(START + 6 * DAY_US)


class Shop(NamedTuple):
    queries: list[Query]
    release: Bundle
    cases: list[Case]


def _orders(release: Bundle) -> dict[str, Bundle]:
    """Of a release in which trees serve and no attraction is learned both are the same."""
    return {WHOLE: release, RANKED: release}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Random events of twelve items, asked in time order by a bundle that means nothing."""
    with pytest.MonkeyPatch.context() as patch:
        home = open_home(tmp_path_factory.mktemp("shop"), patch)
        events = random_events(seed=5, count=500, days=11.0)
        write_raw(home, [e | {"item_id": e["item_id"].replace(" ", "-")} for e in events])
        pq.write_table(tiny_bundle.catalogue(60), home / "data" / "raw" / "items.parquet")
        features()
        patch.setattr(asked, "learned", lambda: load("retrieve", Retrieve))
        release = bundle.load(tiny_bundle.make(home))
        queries = make_queries(product_events(), instant(START), None, None, np.random.default_rng(0))
        assert len(queries) > 30
        yield Shop(queries, release, ask(queries, _orders(release), release.models.ids, 1, "test"))


def test_our_lists_do_not_depend_on_what_else_is_asked(shop: Shop) -> None:
    """Every query alone, last first: the lists of all queries together, in order of time."""
    for query, case in list(zip(shop.queries, shop.cases, strict=True))[::-7]:
        (alone,) = ask([query], _orders(shop.release), shop.release.models.ids, 1, "alone")
        assert alone.ours[WHOLE].tolist() == case.ours[WHOLE].tolist()
        assert alone.ours[RANKED].tolist() == case.ours[RANKED].tolist()
        assert alone.past.rows.tolist() == case.past.rows.tolist()
        assert alone.bits.tolist() == case.bits.tolist()


def test_peers_lists_do_not_depend_on_what_else_is_asked(shop: Shop) -> None:
    visits = visits_before(HALF)
    peer, settings = Covisits(), {"decay": 0.6, "earlier": True}
    peer.fit(visits, 0, window=5, backward=0.5, damping=0.3)
    together, _ = listed(peer, settings, shop.cases, visits.counts())
    order = np.random.default_rng(0).permutation(len(shop.cases))
    shuffled, _ = listed(peer, settings, [shop.cases[at] for at in order], visits.counts())
    assert shuffled.tolist() == together[order].tolist()


def test_what_may_be_listed_is_the_same_for_all_and_never_what_the_visit_knows(shop: Shop) -> None:
    ids = shop.release.models.ids
    for case in shop.cases:
        eligible, kept = case.eligible(len(ids)), case.eligible(len(ids), barred=False)
        assert not eligible[[ids.index(item) for item in case.query.history]].any()
        assert eligible[case.ours[WHOLE]].all() and eligible[case.ours[RANKED]].all()
        assert not (eligible & ~kept).any()  # the window only takes away
    sold_out = [number for number in range(60) if number % 10 == 9]
    assert not any(case.eligible(len(ids))[sold_out].any() for case in shop.cases)


def test_the_history_ends_with_the_visits_newest_contact_and_tells_earlier_visits_apart(shop: Shop) -> None:
    ids = shop.release.models.ids
    for case in shop.cases:
        assert {ids[row] for row in case.past.seen(earlier=False)} <= set(case.query.history)
        assert not case.past.current.any() or ids[case.past.rows[-1]] == case.query.history[-1]
    assert any(not case.past.current.all() for case in shop.cases)


def test_a_peer_is_taught_by_what_lies_before_the_cut_alone(shop: Shop) -> None:
    events, ids = product_events(), shop.release.models.ids
    earlier = events[events["event_ts"] < START + 6 * DAY_US]
    visits = visits_before(HALF)
    assert len(visits) == earlier["session_id"].nunique()
    newest = earlier.iloc[-1]
    assert ids[visits.items[-1]] == newest["item_id"]  # visits stand by their last contact
    assert all((np.diff(visits[visit]) != 0).all() for visit in range(len(visits)))


def test_the_lists_that_hold_all_that_was_wanted_reach_one(shop: Shop) -> None:
    cases = [case for case in shop.cases if case.many <= 12 and len(case.wanted) == case.many]
    perfect = np.array([[*case.wanted, *[-1] * (12 - case.many)] for case in cases])
    ndcg, recall = ndcg_of(perfect, cases)
    assert ndcg == pytest.approx(1.0) and recall == pytest.approx(1.0)
    found = result_of([perfect, np.full_like(perfect, -1)], cases, 12, {})
    assert found.values["ndcg_at_12"].mean(axis=1).tolist() == pytest.approx([1.0, 0.0])
    first = np.array([len(case.query.history) == 1 for case in cases])
    assert np.isnan(found.values["first_query"][0]).tolist() == (~first).tolist()
