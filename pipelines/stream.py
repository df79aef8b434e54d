"""`endcap stream`: events of the Redis Stream -> folds -> feature rows in Redis, each event exactly once.

A batch is one transaction: rows, the position `endcap:applied`, what changed, dead letters and the
acknowledgement appear together or not at all. Whatever dies in between, the entries are still pending, their
rows are as before, and the next consumer claims them. One consumer is active at a time, by a lease that every
transaction watches; any other stands by. Rows are written by feature_repo.online: Feast's own write drops a
row in silence when its instant is not newer, as after a late event, and cannot join a transaction.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from redis import Redis
from redis.exceptions import RedisError, ResponseError, WatchError

from feature_repo import changes
from feature_repo.aggregates import FOLDS, ITEM_ACTIVITY
from feature_repo.errors import EventError
from feature_repo.folds import Event
from feature_repo.online import OnlineView, read_rows
from feature_repo.params import load
from feature_repo.store import open_store, redis_url
from pipelines.stream_folds import (
    FOLDS_BY_NAME,
    Entity,
    Held,
    PoisonError,
    apply,
    parse,
    unstored,
    wanted,
)

EVENTS, DEAD, APPLIED, LEASE = "endcap:events", "endcap:dead", "endcap:applied", "endcap:stream:lease"
GROUP = "folds"
DEAD_KEPT = 10_000
DAY_S = 86_400
RETRY_S = 0.2  # between two looks at a Redis that is away, or at somebody else's lease

Entry = tuple[bytes, bytes]  # id in the stream, JSON

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamParams:
    """`stream:`"""

    batch: int
    block_ms: int
    lease_ms: int
    cached_states: int
    keep_hours: int
    report_s: int


class LeaseLostError(Exception):
    """Another consumer took over; what this one holds in memory may be outdated."""


def main(
    until_empty: Annotated[
        bool, typer.Option(help="stop when every event is applied, instead of waiting")
    ] = False,
) -> None:
    """Keep the online features up to date with the event stream, until SIGTERM."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    params = load("stream", StreamParams)
    url = redis_url()
    name = f"{socket.gethostname()}-{os.getpid()}"
    with Redis.from_url(url, socket_timeout=5 + params.block_ms / 1000) as redis:
        consumer = Consumer(redis, open_store(url).project, params, name)
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: consumer.stop())
        consumer.run(until_empty)


class Consumer:
    """The only writer of the folds' rows while it holds the lease, so their states may stay in memory."""

    def __init__(self, redis: Redis, project: str, params: StreamParams, name: str) -> None:
        self._redis: Any = redis  # redis-py types every answer as "maybe awaitable"
        self._params, self._name = params, name
        self._views = {fold.name: OnlineView(fold, project) for fold in FOLDS}
        self._states: OrderedDict[Entity, Held] = OrderedDict()  # least recently used first
        self._stopping = False
        self.applied = 0

    def stop(self) -> None:
        """Finish the batch in hand and return from `run`."""
        self._stopping = True

    def run(self, until_empty: bool = False) -> None:
        """Work until `stop`, or until nothing is left. An absent Redis is waited for."""
        works, told, before = True, time.monotonic(), 0
        while not self._stopping:
            try:
                self._take_over()
                while not self._stopping:
                    done = self.step()
                    works = True
                    if until_empty and not done and self._behind_s() == 0:
                        self._stopping = True
                    if time.monotonic() - told > self._params.report_s:
                        rate = (self.applied - before) / (time.monotonic() - told)
                        log.info(
                            "%d events applied, %.0f/s, %.1f s behind", self.applied, rate, self._behind_s()
                        )
                        told, before = time.monotonic(), self.applied
                        self._trim()
            except (RedisError, LeaseLostError, OSError) as error:
                if works:
                    log.warning("waiting: %s: %s", type(error).__name__, error)
                works = False
                time.sleep(RETRY_S)
        self._release()
        log.info("stopped after %d events", self.applied)

    def step(self) -> int:
        """Apply one batch of new events, waiting `block_ms` for the first; how many entries it had."""
        self._renew()
        reply = self._redis.xreadgroup(
            GROUP, self._name, {EVENTS: ">"}, count=self._params.batch, block=self._params.block_ms
        )
        return self._handle(_entries(reply[0][1])) if reply else 0

    def _take_over(self) -> None:
        """Get the lease, forget what was in memory, and apply what dead consumers left pending."""
        self._states.clear()
        if not self._redis.set(LEASE, self._name, nx=True, px=self._params.lease_ms):
            self._renew()
        try:
            self._redis.xgroup_create(EVENTS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        start = b"0-0"
        while True:
            start, found, *_ = self._redis.xautoclaim(
                EVENTS, GROUP, self._name, min_idle_time=0, start_id=start, count=self._params.batch
            )
            if entries := _entries(found):
                log.info("%d events of an interrupted batch are applied", len(entries))
                self._handle(entries)
            if start == b"0-0":
                break
        for other in self._redis.xinfo_consumers(EVENTS, GROUP):
            if other["name"].decode() != self._name and other["pending"] == 0:
                self._redis.xgroup_delconsumer(EVENTS, GROUP, other["name"])

    def _handle(self, entries: Sequence[Entry]) -> int:
        events: list[tuple[Entry, Event]] = []
        dead: list[tuple[Entry, str]] = []
        for entry in entries:
            try:
                events.append((entry, parse(entry[1]).event))
            except EventError as error:
                dead.append((entry, str(error)))
        try:
            while True:
                self._fetch([event for _, event in events])
                try:
                    changed = apply(FOLDS, self._states, [event for _, event in events])
                    break
                except PoisonError as error:
                    entry, _ = events.pop(error.index)
                    dead.append((entry, str(error)))
                    self._states.clear()  # half stepped; Redis still has them as they were
            self._commit(entries, [event for _, event in events], changed, dead)
        except BaseException:
            self._states.clear()
            raise
        self.applied += len(events)
        while len(self._states) > self._params.cached_states:
            self._states.popitem(last=False)
        return len(entries)

    def _fetch(self, events: Sequence[Event]) -> None:
        """Bring the stored state of every entity that `events` touch into memory."""
        while absent := wanted(FOLDS, self._states, events):
            missing: dict[str, list[str]] = {}
            for name, key in absent:
                missing.setdefault(name, []).append(key)
            for name, keys in missing.items():
                rows = read_rows(self._redis, self._views[name], keys)
                for key, found in zip(keys, rows, strict=True):
                    self._states[name, key] = (
                        Held(FOLDS_BY_NAME[name].state(found[1]), found[0])
                        if found
                        else unstored((name, key))
                    )

    def _commit(
        self,
        entries: Sequence[Entry],
        events: Sequence[Event],
        changed: dict[Entity, Held],
        dead: Sequence[tuple[Entry, str]],
    ) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.watch(LEASE)
            if pipe.get(LEASE) != self._name.encode():
                raise LeaseLostError("another consumer is active")
            pipe.multi()
            for (name, key), held in changed.items():
                view, fold = self._views[name], FOLDS_BY_NAME[name]
                pipe.hset(view.key(key), mapping=view.encode(fold.row(held.state), held.ts))
                if fold is not ITEM_ACTIVITY:  # an item's hash also holds its catalogue row
                    pipe.expire(view.key(key), 2 * fold.max_age_days * DAY_S)
            changes.announce(pipe, [key for name, key in changed if name == ITEM_ACTIVITY.name])
            if events:
                changes.raise_applied_ts(pipe, max(event.ts for event in events))
            for (number, raw), reason in dead:
                letter = {"id": number, "event": raw, "reason": reason}
                pipe.xadd(DEAD, letter, maxlen=DEAD_KEPT, approximate=True)
            pipe.set(APPLIED, entries[-1][0])
            pipe.xack(EVENTS, GROUP, *(number for number, _ in entries))
            pipe.pexpire(LEASE, self._params.lease_ms)
            try:
                pipe.execute()
            except WatchError:
                raise LeaseLostError("another consumer took over") from None
        for (number, _), reason in dead:
            log.warning("event %s is in %s: %s", number.decode(), DEAD, reason)

    def _renew(self) -> None:
        if self._redis.get(LEASE) != self._name.encode():
            raise LeaseLostError("another consumer is active")
        self._redis.pexpire(LEASE, self._params.lease_ms)

    def _release(self) -> None:
        """Let a standby consumer begin at once."""
        try:
            if self._redis.get(LEASE) == self._name.encode():
                self._redis.delete(LEASE)
        except RedisError:
            pass  # it runs out by itself

    def _behind_s(self) -> float:
        """Seconds between the newest event in the stream and the last applied one; 0 when all are applied."""
        newest = self._redis.xinfo_stream(EVENTS)["last-generated-id"]
        last = self._redis.get(APPLIED) or b"0-0"
        if newest in (last, b"0-0"):
            return 0.0
        return max(int(newest.split(b"-")[0]) - int(last.split(b"-")[0]), 1) / 1000

    def _trim(self) -> None:
        """Drop entries that were applied `keep_hours` ago."""
        if last := self._redis.get(APPLIED):
            before = int(last.split(b"-")[0]) - self._params.keep_hours * 3_600_000
            self._redis.xtrim(EVENTS, minid=f"{max(before, 0)}-0", approximate=True)


def _entries(found: Sequence[Any]) -> list[Entry]:
    return [(number, fields.get(b"event", b"")) for number, fields in found if number is not None]
