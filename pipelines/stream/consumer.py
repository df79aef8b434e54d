"""One consumer process: its share of the stream's tasks, each with a thread and a Redis connection."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from redis import Redis
from redis.exceptions import RedisError

from feature_repo.errors import EndcapError
from feature_repo.eventlog.keys import APPLIED, GROUPS, ITEMS, StreamParams, applied_field, order
from feature_repo.eventlog.open import open_log
from feature_repo.online import changes
from feature_repo.places import ITEM_LOG, at
from pipelines.stream.members import Members, Task, share, tasks
from pipelines.stream.notes import drain
from pipelines.stream.worker import RETRY_S, Worker

BEATS = 6  # per lease_ms

log = logging.getLogger(__name__)


class StuckError(EndcapError):
    """A task neither works nor waits."""


class Running(threading.Thread):
    """A task in its thread."""

    def __init__(self, worker: Worker, redis: Redis) -> None:
        super().__init__(name=worker.task.name, daemon=True)
        self.worker, self._redis = worker, redis
        self.stopping = threading.Event()  # set: finish the batch in hand, then give the task back
        self.start()

    def run(self) -> None:
        try:
            with self._redis:
                self.worker.run(self.stopping)
        except Exception:
            log.exception("%s failed and is started again", self.name)
            self.stopping.wait(RETRY_S)


class Consumer:
    """The tasks of this process; `connect` opens a Redis client."""

    def __init__(self, connect: Callable[[], Redis], params: StreamParams, name: str) -> None:
        self._connect, self._params = connect, params
        self._redis = connect()
        self._members = Members(self._redis, name, params.lease_ms)
        self._log = open_log(self._redis, params)
        self._tasks = tasks(params.partitions)
        self._running: dict[Task, Running] = {}
        self._finished = 0  # entries that ended workers applied
        self._stopping = threading.Event()
        self._marked = True
        self.name = name

    @property
    def applied(self) -> int:
        """Entries that this process applied, each once per group."""
        return self._finished + sum(one.worker.applied for one in self._running.values())

    def held(self) -> list[str]:
        """Names of the tasks that this process works on or waits for."""
        return [task.name for task in self._running]

    def stop(self) -> None:
        """Finish the batches in hand and return from `run`."""
        self._stopping.set()

    def run(self, until_empty: bool = False) -> None:
        """Work until `stop`, or until nothing is left. An absent Redis is waited for.

        Raises StuckError for a task that no longer beats: its process is to be started again.
        """
        works, told, before = True, time.monotonic(), 0
        while not self._stopping.is_set():
            try:
                self._take_share(share(self._tasks, self._members.beat(), self.name))
                self._look_for_mark()
                if ITEMS in self.held():
                    drain(self._redis, at(ITEM_LOG))
                if until_empty and not any(behind.events for behind in self._log.lag().values()):
                    break
                if time.monotonic() - told > self._params.report_s:
                    rate = (self.applied - before) / (time.monotonic() - told)
                    told, before = time.monotonic(), self.applied
                    self._report(rate)
                works = True
            except (RedisError, OSError) as error:
                if works:
                    log.warning("waiting: %s: %s", type(error).__name__, error)
                works = False
            self._stopping.wait(0.02 if until_empty else self._params.lease_ms / BEATS / 1000)
        self._leave()

    def _take_share(self, mine: list[Task]) -> None:
        for task, running in list(self._running.items()):
            if task not in mine:
                running.stopping.set()
            silent_s = time.monotonic() - running.worker.beat
            if running.is_alive() and silent_s > self._params.stuck_s:
                raise StuckError(
                    f"stream: {task.name} has been stuck for {silent_s:.0f} s, more than stream.stuck_s = "
                    f"{self._params.stuck_s:g}. Next: nothing, the supervisor starts this process again"
                )
            if not running.is_alive():
                self._finished += running.worker.applied
                del self._running[task]
        for task in mine:
            if task not in self._running:
                redis = self._connect()
                worker = Worker(redis, task, self._params, self.name)
                self._running[task] = Running(worker, redis)

    def _look_for_mark(self) -> None:
        """Tell once that the rows which were there are gone: those made from now on have no past."""
        if (marked := changes.marked(self._redis)) == self._marked:
            return
        self._marked = marked
        if marked:
            log.warning("the features are there")
        else:
            log.error("%s: new rows have no past. Next: %s", changes.EMPTY, changes.MEND)

    def _report(self, rate: float) -> None:
        behind = ", ".join(
            f"{group} {lag.events:,} entries ({lag.seconds:.1f} s) behind"
            for group, lag in self._log.lag().items()
        )
        log.info("%s: %.0f entries/s; %s", " ".join(self.held()) or "no task", rate, behind)
        if ITEMS in self.held():
            self._trim()

    def _trim(self) -> None:
        """Drop what every group applied long ago."""
        done: dict[int, str] = {}
        for p in range(self._params.partitions):
            found: list[bytes | None] = self._redis.hmget(  # type: ignore[assignment]
                APPLIED, [applied_field(group, p) for group in GROUPS]
            )
            slowest = min(found, key=order)
            if slowest is not None:
                done[p] = slowest.decode()
        self._log.trim(done)

    def _leave(self) -> None:
        for running in self._running.values():
            running.stopping.set()
        for running in self._running.values():
            running.join()
        with suppress(RedisError, OSError):  # then it is forgotten by itself
            drain(self._redis, at(ITEM_LOG))
            self._members.leave()
        self._log.close()
        self._redis.close()
        log.info("stopped after %d entries", self.applied)
