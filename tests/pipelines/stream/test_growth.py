"""A week of a small shop: every key and file stands in the table of docs/operations.md, within its bound.

Redis, the door, the log of answers and the consumers are real; time passes by setting each expiry back a day,
and by a client whose clock runs ahead.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from shops.small import ITEMS, START, open_home, random_events, write_raw
from shops.storefront import act
from shops.stream import stream_params

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.clock import DAY_US, instant
from feature_repo.eventlog.open import open_writer
from feature_repo.features.store import open_store
from feature_repo.features.stored import FOLDS
from feature_repo.offline.build import main as features
from feature_repo.online import changes, newborns
from feature_repo.online.newborns import Newborn
from feature_repo.online.rows import OnlineView
from feature_repo.params import load
from pipelines.stream import notes
from pipelines.stream.consumer import Consumer
from pipelines.stream.materialize import materialize
from serving.beside import trial
from serving.beside.trial import ShadowParams
from serving.beside.understudy import SHADOWED
from serving.http.ingress import Ingress
from serving.http.listing import ItemDoor
from serving.live.exposures import ExposureLog
from serving.params import Serving
from serving.release import looks, state
from serving.rules import published
from serving.rules.document import parse

pytestmark = pytest.mark.fault
DOCS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
DAYS, EVENTS, STRANGE, ANSWERS, KEPT = 7, 120, 30, 150, 200  # a day
DAY_MS = DAY_US // 1000
BORN, VERSIONS, FILES = 8, 5, 3  # new items a day, versions of rules, files of the log of items
SLACK = 110  # entries of a node, by which Redis may keep more of a stream than it was told
HISTORY = random_events(seed=5, count=300)
PARTITIONS = 4


class Later(Redis):
    """A client whose clock is `ahead_s` fast, as the consumers' who trim by it."""

    ahead_s = 0

    def time(self, **_: Any) -> Any:
        seconds, micros = super().time()  # type: ignore[misc]
        return seconds + self.ahead_s, micros


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[tuple[Redis, Path]]:
    with pytest.MonkeyPatch.context() as patch, Later.from_url(redis_server) as redis:
        redis.flushall()
        home = open_home(tmp_path_factory.mktemp("week"), patch)
        patch.setenv("REDIS_URL", redis_server)
        patch.setattr(changes, "CHANGED_KEPT", KEPT)
        patch.setattr(published, "KEPT", VERSIONS)
        patch.setattr(notes, "MOST_SMALL", FILES)
        write_raw(home, HISTORY)
        features()
        materialize(redis, open_store(), instant(HISTORY[-1]["event_ts"] + 1), 100, fresh=True)
        release = state.Release("0" * 16, "data/bundles/none")
        state.install(redis, release, act())
        for day in range(DAYS):
            Later.ahead_s = day * 86_400
            asyncio.run(open_day(redis_server, day))
            apply_all(redis_server)
            for arm in ("champion", "challenger", "holdout"):
                state.publish_health(redis, arm, requests=9, errors=0, empty=0, p99_ms=3.0)
            looks.record_look(redis, {"day": day})
            keep_shop(redis, day)
            if day < DAYS - 1:
                pass_a_day(redis)
        yield redis, home
        Later.ahead_s = 0


async def open_day(url: str, day: int) -> None:
    """Events through the door, as many of made-up visits and items besides, and answers."""
    kept = {"rules_shadow_kept": KEPT, "shadow_kept": KEPT}
    params = replace(load("serving", Serving), exposures_kept=KEPT, served_kept=KEPT, **kept)
    async with AsyncRedis.from_url(url) as redis:
        door = Ingress(redis, open_writer(redis, stream_params(), params.seen_ttl_s), params)
        now = START + (20 + day) * DAY_US
        rng = np.random.default_rng(day)
        posted = [
            {
                "event_id": f"{day}-{i}",
                "event_ts": now + i * 1_000_000,
                "type": "product_viewed",
                "user_id": f"user {rng.integers(0, 9)}" if i < EVENTS else None,
                "session_id": f"visit {day} {i % 20}" if i < EVENTS else f"strange {day} {i}",
                "item_id": str(rng.choice(ITEMS)) if i < EVENTS else f"made up {day} {i}",
            }
            for i in range(EVENTS + STRANGE)
        ]
        posted.append({"event_id": f"poison {day}", "type": "search", "session_id": "s"})
        for event in posted:
            event["event_ts"] = instant(event.get("event_ts", now)).isoformat()
        receipt = await door.accept(posted, door.clock(now + DAY_US, now + DAY_US))
        assert receipt.accepted == len(posted), receipt.rejected
        said = [
            {"item_id": f"born {day} {i}", "title": "A mug", "price": 9.5, "stock": 3} for i in range(BORN)
        ]
        said += [{"item_id": str(item), "price": 5.0 + day} for item in ITEMS]
        said += [{"item_id": f"born {day - 1} {i}", "deleted": True} for i in range(BORN) if day]
        told = await ItemDoor(door).accept(said, door.clock(now + DAY_US, now + DAY_US))
        assert told.accepted == len(said), told.rejected
        log = ExposureLog(redis, params)
        for number in range(ANSWERS):
            log.add({"request_id": f"{day} {number}", "items": ITEMS})
            log.add_sample({"request_id": f"{day} {number}"}, np.zeros((1, len(COLUMNS)), np.float32))
            log.add_pair({"request_id": f"{day} {number}"})
            log.add_pair({"request_id": f"{day} {number}"}, SHADOWED)
        assert await log.flush()


def keep_shop(redis: Redis, day: int) -> None:
    """Another release every other day, with vectors of what was born since; other rules three times a day."""
    vectors = [Newborn(day, b"8 bytes.", np.ones(4, np.float32)) for _ in range(BORN)]
    born = {f"born {day} {i}": vector for i, vector in enumerate(vectors)}
    space, gone = f"space {day // 2}", [f"born {day - 1} {i}" for i in range(BORN)]
    held = newborns.read(redis, space, gone)
    newborns.write(redis, space, {**born, **dict.fromkeys(gone)}, held, keep_hours=24)
    newborns.beat(redis)
    release = state.Release("1" * 16, "data/bundles/another")
    trial.begin(redis, release, load("shadow", ShadowParams), act())
    for number in range(3):
        rule = {"id": f"day-{day}-{number}", "do": {"at_most": {"per": "brand", "slots": 2}}}
        document = parse(orjson.dumps({"rules": [rule]}))
        found = published.publish(redis, document, act(), published.read(redis))
        published.set_shadow(redis, document, act(), found)


def apply_all(url: str) -> None:
    params = {"report_s": 0.0, "keep_hours": 24, "remember_hours": 48}
    one = Consumer(lambda: Later.from_url(url), stream_params(**params), "one")
    one.run(until_empty=True)
    one = Consumer(lambda: Later.from_url(url), stream_params(**params), "one")
    one._trim()
    one._leave()


def pass_a_day(redis: Redis) -> None:
    """Every key is a day nearer to its end; entries of a log were written a day earlier."""
    for key in redis.scan_iter():
        left: Any = redis.pttl(key)
        if left >= 0:
            redis.pexpire(key, max(left - DAY_MS, 0)) if left > DAY_MS else redis.delete(key)


def table(head: str) -> list[str]:
    """Patterns of the table whose first column is `head`."""
    text = DOCS.read_text().partition(f"| {head} |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in text.splitlines()[2:] if line.startswith("|")]
    return [re.sub(r"<\w+>", "*", one) for cell in cells for one in re.findall(r"`([^`]+)`", cell)]


def kinds(redis: Redis) -> dict[str, list[bytes]]:
    """Pattern of the table -> its keys; a row by the key of its entity, as Feast's key holds it."""
    found: dict[str, list[bytes]] = defaultdict(list)
    rows = {fold.key: OnlineView(fold).pattern().partition(b"*")[0] for fold in FOLDS}
    for key in redis.scan_iter():
        name = next((f"{noun}*" for noun, prefix in rows.items() if key.startswith(prefix)), None)
        told = name or next((p for p in table("in Redis") if fnmatchcase(key.decode("latin1"), p)), "unknown")
        found[told].append(key)
    return found


def test_every_key_stands_in_the_table_and_within_its_bound(week: tuple[Redis, Path]) -> None:
    redis, _ = week
    found, every = kinds(redis), EVENTS + STRANGE + 1
    assert "unknown" not in found, found["unknown"]
    assert set(found) <= set(table("in Redis"))

    def entries(pattern: str) -> int:
        return sum(redis.xlen(key) for key in found[pattern])

    assert 0 < entries("endcap:events:*") <= 2 * every + SLACK
    assert 0 < len(found["endcap:seen:*"]) <= every
    assert 0 < sum(redis.scard(key) for key in found["endcap:done:*:*"]) <= 2 * 3 * every
    assert KEPT <= entries("endcap:exposures") <= KEPT + SLACK
    assert KEPT <= entries("endcap:served") <= KEPT + SLACK
    assert entries("endcap:looks") == DAYS and entries("endcap:audit") == 1 + 7 * DAYS
    assert len(found["endcap:health:*"]) == 3
    assert redis.zcard("endcap:items:changed") <= KEPT
    assert redis.scard("endcap:items:listed") == len(ITEMS) + 1 + BORN
    assert 0 < redis.zcard("endcap:items:listings") <= KEPT
    assert redis.xlen("endcap:items:said") == 0
    assert 0 < len(found["endcap:newborns:*"]) <= 2
    assert all(redis.hlen(key) <= BORN for key in found["endcap:newborns:*"])
    assert redis.hlen("endcap:rules:versions") == VERSIONS and len(found["endcap:rules"]) == 1
    assert KEPT <= entries("endcap:rules:shadow") <= KEPT + SLACK
    assert KEPT <= entries("endcap:shadow:pairs") <= KEPT + SLACK
    assert len(found["endcap:shadow"]) == 1
    assert 0 < len(found["session_id*"]) <= 5 * (20 + STRANGE + 1) + 20
    assert 0 < len(found["user_id*"]) <= 16
    assert len(ITEMS) < len(found["item_id*"]) <= len(ITEMS) + 1 + 3 * STRANGE + DAYS * BORN


def test_every_key_expires_or_has_an_owner(week: tuple[Redis, Path]) -> None:
    redis, _ = week
    owned = (
        "endcap:events",
        "endcap:exposures",
        "endcap:served",
        "endcap:looks",
        "endcap:audit",
        "endcap:dead",
        "endcap:rules",
        "endcap:shadow:pairs",
        "endcap:embed",
    )
    single = ("endcap:health", "endcap:rollout", "endcap:stream", "endcap:items", "endcap:applied_ts")
    view = next(OnlineView(fold) for fold in FOLDS if fold.key == "item_id")
    listed = {view.key(item.decode()) for item in redis.smembers("endcap:items:listed")}
    lasting = [key for key in redis.scan_iter() if redis.ttl(key) == -1 and key not in listed]
    assert [key for key in lasting if not key.decode("latin1").startswith((*owned, *single))] == []


def test_what_is_made_up_costs_nothing_for_ever(week: tuple[Redis, Path]) -> None:
    redis, _ = week
    names = [key.decode("latin1") for key in redis.scan_iter()]
    made_up = [name for name in names if "made up" in name]
    assert made_up and not any(f"made up {day} " in name for day in range(DAYS - 3) for name in made_up)


def test_every_file_stands_in_the_table(week: tuple[Redis, Path]) -> None:
    _, home = week
    patterns = [*table("file"), "params.yaml"]
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert 0 < len(list((home / "data/logs/items").glob("*.parquet"))) <= FILES + 1
    assert files and [file for file in files if not any(fnmatchcase(file, p) for p in patterns)] == []


def test_a_reader_behind_the_bounded_list_reads_everything(week: tuple[Redis, Path]) -> None:
    redis, _ = week
    before = changes.seen(redis)
    for number in range(3 * KEPT):
        changes.announce(redis, [f"item of {number}"])
    assert redis.zcard("endcap:items:changed") <= KEPT
    assert changes.since(redis, before)[1] is None
    near = changes.seen(redis)
    changes.announce(redis, ["item 1"])
    assert changes.since(redis, near)[1] == ["item 1"]
