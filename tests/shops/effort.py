"""What something costs in CPU time, told from what a collection of others' leavings costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TRIES = 3


@contextmanager
def quiet_collector() -> Iterator[None]:
    """As the service has it once a release is loaded."""
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(10_000, 50, 100)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def effort(work: Callable[[], object]) -> float:
    """Seconds of CPU that `work` takes, the least of TRIES.

    To be held against the effort of less work, never against a number. One pass of the collector
    through a process full of other tests costs more than what is measured here.
    """
    found = []
    with quiet_collector():
        for _ in range(TRIES):
            began = time.thread_time()
            work()
            found.append(time.thread_time() - began)
    return min(found)
