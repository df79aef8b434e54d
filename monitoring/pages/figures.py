"""Numbers of the pages: who serves, what each arm gets, which reports lie ready."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis

from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.sequential import ArmStatistics
from monitoring.experiment.tail import Tail
from monitoring.experiment.visitors import SlotCounts
from serving.release import state
from serving.release.router import ARMS
from serving.release.state import Health, RolloutState

REPORT_FOLDERS = ("reports", "feedback")  # of data/
REPORT_TYPES = (".html", ".png", ".svg", ".json")


@dataclass(frozen=True)
class ArmRow:
    """One line of the table: what an arm showed and got since the step began."""

    arm: str
    digest: str
    tally: SlotCounts
    health: Health


@dataclass(frozen=True)
class Told:
    """`days`: by surface, arm and day since 1970; `whole`: by arm, each shopper once. Both as far back as the
    logs are kept, whichever release served.

    Since the rollout changed last: `step` as `whole`, `tallies` by (arm, surface, day).
    """

    days: Mapping[str, Mapping[str, Mapping[int, ArmStatistics]]]
    whole: Mapping[str, ArmStatistics]
    step: Mapping[str, ArmStatistics]
    tallies: Mapping[tuple[str, str, int], SlotCounts]


class Course:
    """Joins exposures to clicks as they arrive: all that is kept, and since the rollout changed last.

    The logs are read once for both. Pages are made in threads, so one reader at a time.
    """

    def __init__(self, redis: Redis, params: FeedbackParams) -> None:
        self._redis, self._params, self._lock = redis, params, threading.Lock()
        self._whole, self._tail = Feedback(params), Tail(redis)
        self._step, self._version = Feedback(params, version=0), 0  # no rollout has this one

    def look(self, rollout: RolloutState) -> Told:
        """What has arrived until now."""
        with self._lock:
            if self._version != rollout.version:
                self._step = Feedback(self._params, version=rollout.version)
                if self._version:  # what the tail has behind it; what it meets again changes nothing
                    Tail(self._redis, rollout.since).feed(self._step)
                self._version = rollout.version
            self._tail.feed(self)
            tallies, step_tallies = self._whole.tallies(), self._step.tallies()
            whole, step = ({arm: fed.statistics(arm) for arm in ARMS} for fed in (self._whole, self._step))
        days: dict[str, dict[str, dict[int, ArmStatistics]]] = defaultdict(lambda: defaultdict(dict))
        for (arm, surface, day), tally in tallies.items():
            days[surface][arm][day] = tally.statistics()
        return Told(days, whole, step, step_tallies)

    def update(self, exposures: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
        """A batch of the logs, for both."""
        self._whole.update(exposures, events)
        self._step.update(exposures, events)


def rows(redis: Redis, rollout: RolloutState, told: Told) -> list[ArmRow]:
    """A row per arm that may be shown to somebody, in the order of serving.release.router.ARMS."""
    releases = dict(zip(ARMS, (rollout.champion, rollout.champion, rollout.challenger), strict=True))
    return [
        ArmRow(
            arm=arm,
            digest=release.digest,
            tally=sum((tally for key, tally in told.tallies.items() if key[0] == arm), SlotCounts()),
            health=state.read_health(redis, arm),
        )
        for arm, release in releases.items()
        if release
    ]


@dataclass(frozen=True)
class Report:
    """A file that a stage or a watch left for people; `path` is relative to data/."""

    path: str
    kind: str
    written: datetime
    size: int


def reports(data: Path) -> list[Report]:
    """Newest first."""
    found = [
        Report(
            file.relative_to(data).as_posix(),
            file.suffix[1:],
            datetime.fromtimestamp(file.stat().st_mtime, UTC),
            file.stat().st_size,
        )
        for folder in REPORT_FOLDERS
        for file in (data / folder).rglob("*")
        if file.suffix in REPORT_TYPES and file.is_file() and not file.is_symlink()
    ]
    return sorted(found, key=lambda report: (report.written, report.path), reverse=True)
