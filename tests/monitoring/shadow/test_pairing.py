"""What the log of a shadow says, and when it stands in the way of a canary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from redis import Redis

from monitoring.shadow import pairing, portrait
from monitoring.shadow.pairing import ALL, cleared, measure, objection
from serving.beside.trial import ShadowParams
from serving.beside.understudy import SHADOWED
from serving.release.state import Release, RolloutError

PARAMS = ShadowParams(1.0, 1.0, 0.5, True, 3, 30.0)
NEW = Release("b" * 16, "data/bundles/b")


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        client.delete(SHADOWED)
        yield client


def log(redis: Redis, count: int = 1, **fields: Any) -> None:
    pair = {"surface": "homepage_hero", "shadow": NEW.digest, "shown": ["a", "b"], "list": ["a", "c"]}
    pair |= {"shown_ms": 2.0, "took_ms": 4.0, "short": False, "expected": None, "expected_shown": 0.04}
    for _ in range(count):
        redis.xadd(SHADOWED, {"pair": orjson.dumps(pair | fields)})


def test_pairs_are_told_by_surface_and_those_of_another_release_are_not(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "READ", 2)
    log(redis, 3)
    log(redis, surface="pdp_fbt", list=["a", "b"], took_ms=6.0)
    log(redis, 5, shadow="c" * 16)
    found = measure(redis, NEW.digest)
    assert (found.pairs, found.empty, found.failed) == (4, 0, 0)
    assert {name: one.pairs for name, one in found.alike.items()} == {
        ALL: 4,
        "homepage_hero": 3,
        "pdp_fbt": 1,
    }
    assert found.alike[ALL].overlap == pytest.approx(0.625) and found.alike[ALL].same == 0.25
    assert found.alike[ALL].shadow_ms == (4.0, 6.0, 6.0) and found.alike[ALL].expected is None
    told = "\n".join(portrait.notes(found, ""))
    assert "hold no calibrated chance" in told and max(map(len, told.splitlines())) <= 80


def test_expected_clicks_are_those_where_both_releases_know_them(redis: Redis) -> None:
    log(redis, 2, expected=0.05)
    log(redis, 2)
    assert measure(redis, NEW.digest).alike[ALL].expected == (0.04, 0.05)


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"count": 2}, "computed beside 2 answers, at least 3 are a report"),
        ({"count": 4, "short": True}, "4 of its 4 lists have slots empty"),
        ({"count": 4, "error": "ValueError: no"}, r"failed on 4 of 4 answers \(ValueError: no\)"),
    ],
)
def test_what_speaks_against_a_canary_stops_it_unless_forced_and_then_the_audit_has_it(
    redis: Redis, fields: dict[str, Any], told: str
) -> None:
    log(redis, **fields)
    with pytest.raises(RolloutError, match=f'{told}.*`endcap shadow start`.*--force --why "..."'):
        cleared(redis, NEW, PARAMS)
    numbers = cleared(redis, NEW, PARAMS, forced="the fair begins at noon")
    assert numbers["forced"] == objection(measure(redis, NEW.digest), PARAMS)


def test_a_sound_shadow_clears_the_way_and_its_numbers_go_along(redis: Redis) -> None:
    log(redis, 3)
    assert cleared(redis, NEW, PARAMS) == {
        "shadow": {"pairs": 3, "empty": 0, "failed": 0, "overlap": 0.5, "rbo": 0.55}
    }
