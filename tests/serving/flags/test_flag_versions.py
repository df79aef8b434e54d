"""The document of experiments: refused by name at the door, compare-and-set in Redis, audited."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from redis import Redis

from serving.flags import flag_versions
from serving.flags.flag_document import Flags, FlagsError, parse, render
from serving.flags.flag_versions import FlagsConflict
from serving.release.state import Act, read_audit

AB = [{"name": "control"}, {"name": "b", "do": {"trade_off": 0.5}}]


def text(*told: dict[str, Any], **more: Any) -> bytes:
    each = [{"key": f"f{at}", "variants": AB} | one for at, one in enumerate(told)]
    return orjson.dumps({"flags": each, **more})


def act(why: str = "test") -> Act:
    return Act("tester", why, time.time_ns() // 1000)


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def publish(redis: Redis, document: bytes) -> Flags:
    return flag_versions.publish(redis, parse(document), act(), flag_versions.read(redis))


RUNS = {"status": "running"}
REFUSED: list[tuple[bytes, str]] = [
    (b"[", "document: '[' is not allowed; allowed: one JSON object"),
    (text({"ramp": 101}), "flag 'f0', ramp: 101 is not allowed; allowed: less than or equal to 100"),
    (text({"colour": 1}), "flag 'f0', colour: 1 is not allowed; allowed: the keys key, why, layer"),
    (text({"audience": {"surface": ["moon"]}}), "audience.surface[0]: 'moon' is not allowed; allowed: "),
    (text({"variants": AB[:1]}), "flag 'f0', variants"),
    (
        text({"variants": [AB[0], {"name": "b", "do": {"order": "luck"}}]}),
        "'blend' or 'bestsellers'",
    ),
    (text({"layer": "x"}), "flag 'f0', layer: 'x' is not allowed; allowed: no layer is in `layers`"),
    (text({"key": "a"}, {"key": "a"}), "flag 'a', flags: 'a' is not allowed; allowed: each name once"),
    (text({"key": "holdout"}), "flag 'holdout', key: 'holdout' is not allowed; allowed: any other name"),
    (text({"variants": [AB[0], {"name": "b", "do": {"rule_set": "r"}}]}), "do.rule_set: 'r' is not allowed"),
    (text({"slice": {"from": 50, "until": 50}}), "allowed: `from` before `until`"),
    (
        text({"variants": [{"name": "a", "do": {"value": 1}}, {"name": "b", "do": {"value": "x"}}]}),
        "variants: int, str is not allowed; allowed: values of one type",
    ),
    (
        text({"layer": "l", **RUNS}, {"layer": "l", **RUNS}, layers=[{"name": "l"}]),
        "flag 'f1', slice: 0-100 is not allowed; allowed: shoppers that 'f0' does not have",
    ),
    (text(RUNS, RUNS), "flag 'f1', variants: trade_off is not allowed; allowed: what 'f0' leaves alone"),
]


@pytest.mark.parametrize(("document", "words"), REFUSED)
def test_what_does_not_fit_is_refused_by_field_value_and_what_is_allowed(document: bytes, words: str) -> None:
    with pytest.raises(FlagsError) as refused:
        parse(document)
    assert words in str(refused.value) and "Next: " in str(refused.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(FlagsError) as refused:
        parse(text({"ramp": -1}, {"effect": 0}))
    assert "'f0', ramp" in str(refused.value) and "'f1', effect" in str(refused.value)


def test_each_change_is_a_version_with_who_and_why_and_only_one_of_two_wins(redis: Redis) -> None:
    seen = flag_versions.read(redis)
    assert seen.version == 0 and not seen.flags().flags
    publish(redis, text({}))
    with pytest.raises(FlagsConflict, match="changed by somebody else"):
        flag_versions.publish(redis, parse(text({})), act(), seen)
    with pytest.raises(FlagsConflict, match="made from version 7, version 1 holds"):
        publish(redis, text({}, version=7))
    flag_versions.start(redis, "f0", 20.0, act("try it"), flag_versions.read(redis))
    entry = read_audit(redis, 1)[0]
    assert (entry["what"], entry["who"], entry["why"]) == ("publish_flags", "tester", "try it")
    assert entry["numbers"] == {"start": "f0", "ramp": 20.0, "flags": {"f0": "running"}, "flags_version": 2}


def test_a_flag_that_is_not_there_is_told_with_those_that_are(redis: Redis) -> None:
    publish(redis, text({}))
    with pytest.raises(FlagsError, match="'x', key: 'x' is not allowed; allowed: f0"):
        flag_versions.start(redis, "x", None, act(), flag_versions.read(redis))


def test_while_it_runs_nothing_changes_that_would_move_a_shopper(redis: Redis) -> None:
    publish(redis, text({"ramp": 20, **RUNS}))
    for changed in ({"variants": [*AB, {"name": "c"}]}, {"slice": {"until": 50}}, {"metric": "conversion"}):
        with pytest.raises(FlagsError, match="allowed: what it is while it runs"):
            publish(redis, text({"ramp": 20, **RUNS, **changed}))
    with pytest.raises(FlagsError, match=r"ramp: 10 is not allowed; allowed: 20 to 100"):
        publish(redis, text({"ramp": 10, **RUNS}))
    assert publish(redis, text({"ramp": 60, **RUNS})).flag("f0").ramp == 60


def test_salts_are_kept_while_it_runs_and_drawn_anew_when_it_begins_again(redis: Redis) -> None:
    first = publish(redis, text(RUNS, layers=[{"name": "l"}]))
    again = publish(redis, text({"why": "more words", **RUNS}, layers=[{"name": "l"}]))
    assert first.flag("f0").salt == again.flag("f0").salt != ""
    assert first.layers[0].salt == again.layers[0].salt != ""
    assert again.flag("f0").since == first.version
    flag_versions.stop(redis, "f0", act(), flag_versions.read(redis))
    anew = flag_versions.start(redis, "f0", None, act(), flag_versions.read(redis))
    assert anew.flag("f0").salt != first.flag("f0").salt and anew.flag("f0").since == anew.version
    assert b"salt" not in render(anew, salts=False) and b"salt" in render(anew)
