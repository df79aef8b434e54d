"""What a replay counts as equal: slots, candidates, and the 28 columns each for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from redis import Redis
from shops.small import open_home

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.clock import instant, micros
from feature_repo.errors import EndcapError
from feature_repo.online import changes
from feature_repo.params import shop
from pipelines.parity import replay
from pipelines.parity.agreement import Expected, Parity
from pipelines.parity.summary import show
from pipelines.protocol.queries import Query
from serving.beside.trial import INTERLEAVE
from serving.explore.budget import UNSEEN_KEY
from serving.release.state import Act
from serving.rules import published
from serving.rules.document import parse
from serving.types import Context

ITEMS = ["a", "b", "c"]
STORED = {
    "session_context": {"views": 3, "intent": 2.5},
    "item_activity": {"views_24h": [4.0, 9e-5, 0.0]},
}
VIEWS = COLUMNS.index("session_views")


def expected(at: int = 0) -> Expected:
    """The answer to query `at`: three candidates whose 84 values are all different."""
    query = Query(at, 1000 + at, None, f"visit {at}", ("z",), frozenset("b"), Context())
    values = np.arange(1, 3 * 28 + 1, dtype=np.float32).reshape(3, 28)
    return Expected(query, query.request(), ITEMS, ITEMS, values, STORED)


def answer(of: Expected, **changes: Any) -> dict[str, Any]:
    """The service's JSON, equal to `of` in everything."""
    rows = zip(of.candidates, of.values.tolist(), strict=True)
    found: dict[str, Any] = {
        "arm": "champion",
        "degraded": None,
        "items": [{"item_id": item} for item in of.items],
        "debug": {"features": dict(rows), "stored": orjson.loads(orjson.dumps(STORED))},
    }
    return found | changes


def compared(answers: int = 40) -> Parity:
    parity = Parity(1e-4)
    for at in range(answers):
        parity.check(answer(expected(at)), expected(at))
    return parity


def test_equal_answers_pass() -> None:
    parity = compared()
    assert parity.failures(0.999, 0.5) == []
    assert set(parity.shares().values()) == set(parity.column_shares().values()) == {1.0}
    assert parity.report()["unequal_values"] == {} and parity.report()["lists_that_differ"] == []


def test_nothing_compared_does_not_pass() -> None:
    assert len(Parity(1e-4).failures(0.999, 0.5)) == 3 + 28 + 1


def test_a_wrong_slot_is_counted_and_its_list_shown() -> None:
    parity, other = compared(1), [{"item_id": item} for item in "acb"]
    parity.check(answer(expected(1), items=other), expected(1))
    assert (parity.equal_lists, parity.equal_slots, parity.slots) == (1, 4, 6)
    (example,) = parity.report()["lists_that_differ"]
    assert (example["online"], example["offline"]) == (["a", "c", "b"], ITEMS)
    (told,) = parity.failures(0.999, 0.5)
    assert told.startswith("66.6667% of the slots equal the offline ones, 99.9")


def test_a_missing_candidate_is_counted_and_the_others_are_compared() -> None:
    parity, told = Parity(1e-4), answer(expected())
    del told["debug"]["features"]["b"]
    parity.check(told, expected())
    assert (parity.shared_candidates, parity.candidates) == (2, 3)
    assert parity.compared == 2 and not parity.unequal.any()
    assert [line.split(" equal")[0] for line in parity.failures(0.999, 0.5)] == ["66.6667% of the candidates"]


@pytest.mark.parametrize("online", [True, False])
def test_a_value_that_one_side_does_not_know_is_unequal(online: bool) -> None:
    parity, wanted = Parity(1e-4), expected()
    told = answer(wanted)
    if online:
        told["debug"]["features"]["b"][VIEWS] = None
    else:
        wanted.values[1, VIEWS] = np.nan
    parity.check(told, wanted)
    assert parity.report()["unequal_values"] == {"session_views": 1}


def test_a_value_that_neither_side_knows_is_equal() -> None:
    wanted = expected()
    wanted.values[:, VIEWS] = np.nan
    parity = Parity(1e-4)
    parity.check(orjson.loads(orjson.dumps(answer(wanted), option=orjson.OPT_SERIALIZE_NUMPY)), wanted)
    assert parity.failures(0.999, 0.5) == []


def test_one_column_off_in_one_answer_of_forty_fails_although_the_overall_share_passes() -> None:
    parity, wrong = compared(39), answer(expected(39))
    for values in wrong["debug"]["features"].values():
        values[VIEWS] += 1.0
    parity.check(wrong, expected(39))
    assert parity.shares()["values"] > 0.999
    (told,) = parity.failures(0.999, 0.5)
    assert told == "97.5000% of the values of session_views equal the offline ones, 99.9000% must"


@pytest.mark.parametrize(("offline", "online"), [(0.0, 9e-5), (9e-5, 0.0)])
def test_a_column_of_small_values_does_not_equal_a_column_of_zeros(offline: float, online: float) -> None:
    parity, wanted = Parity(1e-4), expected()
    wanted.values[:, VIEWS] = offline
    told = answer(wanted)
    for values in told["debug"]["features"].values():
        values[VIEWS] = online
    parity.check(told, wanted)
    assert parity.report()["unequal_values"] == {"session_views": 3}


def test_a_difference_within_the_tolerance_of_value_and_column_is_none() -> None:
    parity, wanted = Parity(1e-4), expected()
    wanted.values[:, VIEWS] = (0.0, 0.5, 400.0)
    told = answer(wanted)
    for item, value in zip(ITEMS, (9e-5, 0.5001, 400.03), strict=True):
        told["debug"]["features"][item][VIEWS] = value
    parity.check(told, wanted)
    assert parity.failures(0.999, 0.5) == []


def test_a_wrong_stored_column_is_named_as_the_culprit() -> None:
    parity, wrong = Parity(1e-4), answer(expected())
    wrong["debug"]["features"]["a"][VIEWS] += 1.0
    wrong["debug"]["features"]["b"][COLUMNS.index("views_24h")] += 1.0
    wrong["debug"]["stored"]["session_context"]["views"] = 4
    wrong["debug"]["stored"]["item_activity"]["views_24h"][1] = 0.0
    parity.check(wrong, expected())
    found = parity.report()["features"]
    assert found["session_views"]["mismatches"][0]["culprits"] == [
        "session_context.views: online 4, offline 3"
    ]
    assert found["views_24h"]["mismatches"][0]["culprits"] == [
        "item_activity.views_24h: online 0.0, offline 9e-05"
    ]


def test_answers_of_mostly_the_holdout_do_not_pass() -> None:
    parity = compared(2)
    for at in range(2, 5):
        parity.check(answer(expected(at), arm="holdout"), expected(at))
    assert parity.failures(0.999, 0.4) == []
    assert parity.failures(0.999, 0.5) == ["the champion answered 2 of 5 questions, 50% must be its own"]


def test_a_question_asked_again_is_counted_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    wanted, degraded = expected(), iter(["features_late", "features_late", None])
    told = answer(wanted)

    def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=orjson.dumps(told | {"degraded": next(degraded)}))

    with httpx.Client(base_url="http://shop", transport=httpx.MockTransport(serve)) as client:
        found, again = replay._ask(client, wanted)
    assert (found["degraded"], again) == (None, 2)
    parity = compared(1)
    parity.asked_again += again
    show(parity.report())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "asked again" in line]
    assert line.split("│")[2].strip() == "2"


def test_a_shop_whose_lists_are_steered_is_not_replayed(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_home(tmp_path, monkeypatch)
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as redis:
        replay.check_unsteered(redis)  # nothing was ever published
        pin = {"id": "hero", "do": {"pin": {"items": ["item-3"], "slots": [0]}}}
        document = parse(orjson.dumps({"rules": [pin]}))
        published.publish(redis, document, Act("tester", "a look", 0), published.read(redis))
        redis.set(UNSEEN_KEY, "{}")
        redis.set(INTERLEAVE, "{}")
        told = (
            r"replay: 1 rules hold, products are on offer to be explored, two .* are interleaved; allowed: .*"
        )
        with pytest.raises(EndcapError, match=told):
            replay.main()


def test_a_shop_whose_features_hold_events_from_the_cut_on_is_not_replayed(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_home(tmp_path, monkeypatch)
    monkeypatch.setenv("REDIS_URL", redis_url)
    cut = shop().test_from
    with Redis.from_url(redis_url) as redis:
        replay.check_as_of_cut(redis, shop())  # nothing is applied
        changes.raise_applied_ts(redis, micros(cut) - 1)
        replay.check_as_of_cut(redis, shop())  # materialized as of the cut
        changes.raise_applied_ts(redis, micros(cut) + 7)
    with pytest.raises(EndcapError) as refused:
        replay.main()
    for told in (
        f"up to {instant(micros(cut) + 7).isoformat()}; allowed: before the cut, {cut.isoformat()}",
        "`endcap replay --standalone`",
        f"`endcap down stream`, `endcap materialize --fresh --forget-log --as-of {cut.isoformat()}`",
    ):
        assert told in str(refused.value)
