"""Who works on what: the tasks of the stream, and their fair share among the live consumer processes.

The share is only a plan, which every process makes from the same list of members; what keeps two processes
off one task is its lease. So a plan that differs for a moment costs a wait and nothing else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from feature_repo.eventlog.keys import ITEMS, LEASE, MEMBERS, VISITORS

BEAT = Path(__file__).with_suffix(".lua").read_text()


class Task(NamedTuple):
    """One reader: a group of folds over some partitions, in one place at a time."""

    name: str
    group: str
    partitions: tuple[int, ...]
    weight: int  # relative work

    @property
    def lease(self) -> str:
        return LEASE + self.name


def tasks(partitions: int) -> list[Task]:
    """A task per partition for the visitors; one for the items, whose rows all partitions touch.

    >>> [task.name for task in tasks(2)]
    ['items', 'visitors:0', 'visitors:1']
    """
    every = tuple(range(partitions))
    items = Task(ITEMS, ITEMS, every, max(partitions // 2, 1))
    return [items, *(Task(f"{VISITORS}:{p}", VISITORS, (p,), 1) for p in every)]


def share(all_tasks: Sequence[Task], members: Sequence[str], name: str) -> list[Task]:
    """The tasks of member `name`: each task, the heaviest first, goes to whom has least; ties to the first.

    >>> [task.name for task in share(tasks(2), ["a", "b"], "b")]
    ['visitors:0']
    """
    load = dict.fromkeys(members, 0)
    mine = []
    for task in sorted(all_tasks, key=lambda task: -task.weight):
        least = min(load, key=lambda member: load[member])
        load[least] += task.weight
        if least == name:
            mine.append(task)
    return mine


class Members:
    """The list of live processes, with this one in it."""

    def __init__(self, redis: Redis, name: str, silent_ms: int) -> None:
        self._redis: Any = redis
        self.name, self._silent_ms = name, silent_ms
        self._beat = redis.register_script(BEAT)

    def beat(self) -> list[str]:
        """Tell that this process lives; the names of all that do, the first joined first."""
        return [name.decode() for name in self._beat([MEMBERS], [self.name, self._silent_ms])]

    def leave(self) -> None:
        self._redis.zrem(MEMBERS, self.name)
