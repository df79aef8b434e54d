"""Numbers of the pages: who serves, what each arm gets, which reports lie ready."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

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


class Arms:
    """Joins exposures to clicks as they arrive; starts again when the rollout moves on.

    Pages are made in threads, so one reader at a time.
    """

    def __init__(self, redis: Redis, params: FeedbackParams) -> None:
        self._redis, self._params = redis, params
        self._lock = threading.Lock()
        self._version: int | None = None

    def rows(self, rollout: RolloutState) -> list[ArmRow]:
        """A row per arm that may be shown to somebody, in the order of serving.release.router.ARMS."""
        with self._lock:
            tallies = self._fed(rollout).tallies()
        releases = dict(zip(ARMS, (rollout.champion, rollout.champion, rollout.challenger), strict=True))
        return [
            ArmRow(
                arm=arm,
                digest=release.digest,
                tally=sum((tally for key, tally in tallies.items() if key[0] == arm), SlotCounts()),
                health=state.read_health(self._redis, arm),
            )
            for arm, release in releases.items()
            if release
        ]

    def statistics(self, rollout: RolloutState, *arms: str) -> list[ArmStatistics]:
        """The clicks of these arms since the rollout changed last, for a test."""
        with self._lock:
            feedback = self._fed(rollout)
            return [feedback.statistics(arm) for arm in arms]

    def _fed(self, rollout: RolloutState) -> Feedback:
        if self._version != rollout.version:
            self._feedback = Feedback(self._params, version=rollout.version)
            self._tail = Tail(self._redis, rollout.since)
            self._version = rollout.version
        self._tail.feed(self._feedback)
        return self._feedback


class Course:
    """What was shown and clicked as far back as the logs are kept, whichever release served."""

    def __init__(self, redis: Redis, params: FeedbackParams) -> None:
        self._lock = threading.Lock()
        self._feedback, self._tail = Feedback(params), Tail(redis)

    def look(self) -> "Told":
        """What has arrived until now."""
        with self._lock:
            self._tail.feed(self._feedback)
            tallies = self._feedback.tallies()
            whole = {arm: self._feedback.statistics(arm) for arm in ARMS}
        days: dict[str, dict[str, dict[int, ArmStatistics]]] = defaultdict(lambda: defaultdict(dict))
        for (arm, surface, day), tally in tallies.items():
            days[surface][arm][day] = tally.statistics()
        return Told(days, whole)


@dataclass(frozen=True)
class Told:
    """`days`: by surface, arm and day since 1970; `whole`: by arm, each shopper once."""

    days: Mapping[str, Mapping[str, Mapping[int, ArmStatistics]]]
    whole: Mapping[str, ArmStatistics]


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
