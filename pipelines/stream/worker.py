"""One task of the stream: entries of its partitions -> folds -> rows, each event exactly once.

A batch is one transaction: rows, the positions that they hold, the marks of the events, what changed, dead
letters and the acknowledgement appear together or not at all. Whatever dies in between, the next holder of
the task's lease begins at the positions that stand beside the rows. The transaction watches the lease, and
for visitors also every row that was read: two visits of one shopper may be in two partitions, and then two
tasks touch the shopper's row. Whose rows changed meanwhile reads them again. Item rows have one writer, so
their states stay in memory.

Rows are written by feature_repo.online.rows: Feast's own write drops a row in silence when its instant is not
newer, as after a late event, and cannot join a transaction.
"""

import logging
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, MutableMapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, WatchError

from feature_repo.clock import HOUR_US
from feature_repo.errors import EventError, FeatureError
from feature_repo.eventlog.contract import Entry, EventLog, Holder, LeaseLostError
from feature_repo.eventlog.keys import APPLIED, DEAD, DONE, GROUPS, ITEMS, StreamParams, applied_field
from feature_repo.eventlog.open import open_log
from feature_repo.features.stored import ITEM_ACTIVITY
from feature_repo.folds.fold import Event
from feature_repo.online import changes
from feature_repo.online.lifetimes import expire
from feature_repo.online.rows import OnlineView, read_rows
from pipelines.stream.apply import (
    FOLDS_BY_NAME,
    FOLDS_OF,
    Arrival,
    Entity,
    Held,
    PoisonError,
    apply,
    parse,
    unstored,
    wanted,
)
from pipelines.stream.members import Task
from pipelines.stream.rewind import Horizon, read_horizon
from pipelines.stream.said import Change, Listings

DEAD_KEPT = 10_000
RETRY_S = 0.2  # between two looks at a Redis that is away, or at somebody else's lease

# KEYS: lease; ARGV: holder, ms
RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2])"
RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])"

log = logging.getLogger(__name__)
Understood = tuple[Entry, Arrival]  # an entry that is an event
Letter = tuple[Entry, str]  # one that cannot be applied, and why


class RowsChangedError(Exception):
    """Another task wrote a row of the batch between its reading and its writing."""


class Worker:
    """Works on one task while it holds the lease; for one thread."""

    def __init__(self, redis: Redis, task: Task, params: StreamParams, name: str) -> None:
        self._redis: Any = redis  # redis-py types every answer as "maybe awaitable"
        self.task, self._params = task, params
        self._holder = Holder(task.lease, name)
        self._log: EventLog = open_log(redis, params, task.group, self._holder)
        self._folds = FOLDS_OF[task.group]
        self._views = {fold.name: OnlineView(fold) for fold in self._folds}
        self._listings = Listings(redis)
        self._states: OrderedDict[Entity, Held] = OrderedDict()  # of items; least recently used first
        self._key = lru_cache(2 * params.cached_states)(lambda name, key: self._views[name].key(key))
        self._horizon = Horizon(0, 0, {})
        self._at: dict[str, bytes | None] = {}  # field of APPLIED -> the position that is in the rows
        self.applied = 0
        self.beat = time.monotonic()  # when it last looked for work; the consumer looks at it

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`, then finish the batch in hand. An absent log or Redis is waited for."""
        works = True
        while not stop.is_set():
            self.beat = time.monotonic()
            try:
                if not self.take_over():
                    stop.wait(RETRY_S)
                    continue
                while not stop.is_set():
                    self.step()
                    works, self.beat = True, time.monotonic()
            except (RedisError, LeaseLostError, OSError) as error:
                if works:
                    log.warning("%s waits: %s: %s", self.task.name, type(error).__name__, error)
                works = False
                stop.wait(RETRY_S)
        self._release()

    def take_over(self) -> bool:
        """Get the lease, forget what was in memory, and go to what is applied; False: another holds it."""
        self._states.clear()
        if not self._redis.set(self._holder.lease, self._holder.name, nx=True, px=self._params.lease_ms):
            try:
                self._renew()
            except LeaseLostError:
                return False
        fields = [applied_field(self.task.group, p) for p in self.task.partitions]
        self._at = dict(zip(fields, self._redis.hmget(APPLIED, fields), strict=True))
        self._horizon = read_horizon(self._redis)
        positions = [at.decode() if at else None for at in self._at.values()]
        self._log.open(dict(zip(self.task.partitions, positions, strict=True)))
        return True

    def step(self) -> int:
        """Apply one batch of new entries, waiting `block_ms` for the first; how many it had."""
        entries = self._log.read(self._params.batch, self._params.block_ms)
        if entries:
            self.handle(entries)
        else:
            self._renew()
        return len(entries)

    def handle(self, entries: Sequence[Entry]) -> None:
        """Apply a batch. LeaseLostError: nothing of it is applied here."""
        known, said, letters = self._understand(entries)
        past: list[Understood] = []
        events: list[Understood] = []
        for entry, arrival in known:
            covered = self._horizon.covers(entry, arrival.event.ts, arrival.created)
            (past if covered else events).append((entry, arrival))
        events = self._unapplied(events)
        try:
            while True:
                try:
                    self._attempt(entries, events, said, letters, past)
                    break
                except RowsChangedError:
                    self._states.clear()
                except PoisonError as error:  # states are half stepped; Redis has them as they were
                    letters.append((events.pop(error.index)[0], str(error)))
                    self._states.clear()
        except FeatureError as error:  # some row cannot be written: one by one, the event shows itself
            self._states.clear()
            if len(entries) > 1:
                for entry in entries:
                    self.handle([entry])
                return
            letters += [(entry, str(error)) for entry in (entries if events or said else ())]
            self._attempt(entries, [], [], letters, past)
        except BaseException:
            self._states.clear()
            raise
        self.applied += len(entries)
        while len(self._states) > self._params.cached_states:
            self._states.popitem(last=False)

    def _understand(self, entries: Sequence[Entry]) -> tuple[list[Understood], list[Change], list[Letter]]:
        """Events and changes for this group; letters for what is none, written by the first group only."""
        events, said, letters = [], [], []
        for entry in entries:
            if entry.only not in (None, self.task.group):
                continue
            try:
                if isinstance(found := parse(entry.raw), Change):
                    said.append(found)
                else:
                    events.append((entry, found))
            except EventError as error:
                if self.task.group == (entry.only or GROUPS[0]):
                    letters.append((entry, str(error)))
        return events, said, letters

    def _unapplied(self, events: Sequence[Understood]) -> list[Understood]:
        """Without those that were applied already: sent again, or read again after a rewind."""
        marks = self._marks(events)
        with self._redis.pipeline(transaction=False) as pipe:
            for key, first in marks.items():
                pipe.smismember(key, list(first))
            found = pipe.execute()
        fresh = {
            entry
            for first, known in zip(marks.values(), found, strict=True)
            for entry, seen in zip(first.values(), known, strict=True)
            if not seen
        }
        return [(entry, arrival) for entry, arrival in events if entry in fresh]

    def _marks(self, events: Iterable[Understood]) -> dict[str, dict[bytes, Entry]]:
        """Key of the marks of an hour -> 8 bytes of an identity -> the first entry that has it."""
        found: defaultdict[str, dict[bytes, Entry]] = defaultdict(dict)
        for entry, arrival in events:
            key = f"{DONE}{self.task.group}:{arrival.event.ts // HOUR_US}"
            found[key].setdefault(arrival.identity[:8], entry)
        return found

    def _attempt(
        self,
        entries: Sequence[Entry],
        understood: Sequence[Understood],
        said: Sequence[Change],
        letters: Sequence[Letter],
        past: Sequence[Understood],
    ) -> None:
        events = [arrival.event for _, arrival in understood]
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.watch(self._holder.lease)
            if pipe.get(self._holder.lease) != self._holder.name.encode():
                raise LeaseLostError(f"{self.task.name} is another's")
            if pipe.hmget(APPLIED, list(self._at)) != list(self._at.values()):
                raise LeaseLostError("this Redis lacks what was applied, as a replica may that took over")
            alone = self.task.group == ITEMS
            states: MutableMapping[Entity, Held] = self._states if alone else {}
            self._fetch(states, events, None if alone else pipe)
            changed = apply(self._folds, states, events)
            listed = self._listings.apply(pipe, said)
            pipe.multi()
            self._write(pipe, changed)
            self._listings.write(pipe, listed)
            if events:
                changes.raise_applied_ts(pipe, max(event.ts for event in events))
            for key, digests in self._marks((*understood, *past)).items():
                pipe.sadd(key, *digests)
                pipe.expire(key, self._params.remember_hours * 3600)
            for entry, reason in letters:
                letter = {"group": self.task.group, "partition": entry.partition, "position": entry.position}
                pipe.xadd(DEAD, {**letter, "reason": reason, "event": entry.raw}, maxlen=DEAD_KEPT)
            last = {entry.partition: entry.position for entry in entries}
            applied = {applied_field(self.task.group, p): position for p, position in last.items()}
            pipe.hset(APPLIED, mapping=applied)
            self._log.acknowledge(pipe, entries)
            pipe.pexpire(self._holder.lease, self._params.lease_ms)
            try:
                pipe.execute()
            except WatchError as error:
                if isinstance(error.__context__, RedisError):
                    raise error.__context__ from None  # the connection broke: it may have been executed
                if self._redis.get(self._holder.lease) == self._holder.name.encode():
                    raise RowsChangedError from None
                raise LeaseLostError(f"{self.task.name} was taken over") from None
        self._log.committed(last)
        self._at |= {name: position.encode() for name, position in applied.items()}
        if alone:
            for entity in changed:
                self._states.move_to_end(entity)
        for entry, reason in letters:
            log.warning("entry %d:%s is in %s: %s", entry.partition, entry.position, DEAD, reason)

    def _fetch(self, states: MutableMapping[Entity, Held], events: Sequence[Event], pipe: Any) -> None:
        """Bring the stored state of every entity that `events` need into `states`, watched by `pipe`."""
        while absent := wanted(self._folds, states, events):
            missing: dict[str, list[str]] = {}
            for name, key in absent:
                missing.setdefault(name, []).append(key)
            if pipe:
                pipe.watch(*(self._key(*entity) for entity in absent))
            for name, keys in missing.items():
                rows = read_rows(self._redis, self._views[name], keys)
                for key, found in zip(keys, rows, strict=True):
                    held = found and Held(FOLDS_BY_NAME[name].state(found[1]), found[0])
                    states[name, key] = held or unstored((name, key))

    def _write(self, pipe: Any, changed: dict[Entity, Held]) -> None:
        written: defaultdict[str, list[bytes]] = defaultdict(list)
        for (name, key), held in changed.items():
            stored = self._key(name, key)
            row = FOLDS_BY_NAME[name].row(held.state)
            pipe.hset(stored, mapping=self._views[name].encode(row, held.ts))
            written[name].append(stored)
        listed = self._listings.view.fields[-1]
        for name, keys in written.items():
            expire(pipe, FOLDS_BY_NAME[name], keys, self._params.unlisted_hours, listed)
        changes.announce(pipe, [key for name, key in changed if name == ITEM_ACTIVITY.name])

    def _renew(self) -> None:
        if not self._redis.eval(RENEW, 1, self._holder.lease, self._holder.name, self._params.lease_ms):
            raise LeaseLostError(f"{self.task.name} is another's")

    def _release(self) -> None:
        """Let another begin at once."""
        with suppress(RedisError):  # then it runs out by itself
            self._redis.eval(RELEASE, 1, self._holder.lease, self._holder.name)
        self._log.close()
