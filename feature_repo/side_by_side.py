"""Work that falls into parts, done by several processes: the same results in the same order as by one.

The processes are forks, so what was imported and loaded is there already and `work` need not be picklable.
Linear algebra has one thread in each: more of them would wait for each other, and would add in another order.
"""

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from feature_repo.errors import EndcapError

T = TypeVar("T")
FORKS = sys.platform == "linux"  # elsewhere system libraries do not survive a fork


def in_turn(work: Callable[[int, int], Iterable[T]], processes: int) -> Iterator[T]:
    """Results of `work(part, parts)` for all parts, one of each in turn; a part that has ended is left out.

    A part that has made a result waits until it is taken, so memory does not grow. An EndcapError and an
    OSError of a part are raised here as they are; any other error as RuntimeError, its first line first.

    >>> list(in_turn(lambda part, parts: range(part, 7, parts), 1))
    [0, 1, 2, 3, 4, 5, 6]
    """
    if processes == 1 or not FORKS:
        with threadpool_limits(1):
            yield from work(0, 1)
        return
    fork = multiprocessing.get_context("fork")
    workers, ends = [], []
    for part in range(processes):
        ours, theirs = fork.Pipe(duplex=False)
        worker = fork.Process(target=_part, args=(work, part, processes, ours, theirs), daemon=True)
        worker.start()
        theirs.close()
        workers.append(worker)
        ends.append(ours)
    try:
        left = list(range(processes))
        while left:
            for part in tuple(left):
                kind, value = _received(ends[part])
                if kind == "end":
                    left.remove(part)
                elif kind == "error":
                    raise value
                else:
                    yield value
    finally:
        for end in ends:
            end.close()
        for worker in workers:
            worker.terminate()  # nothing to one that has ended
            worker.join()


def _received(end: Connection) -> tuple[str, Any]:
    try:
        kind, value = end.recv()
        return kind, value
    except EOFError:
        problem = "a process ended without a word, for lack of memory most likely"
        raise EndcapError(f"{problem}. Next: allow 1 process in params.yaml.") from None


def _part(
    work: Callable[[int, int], Iterable[T]], part: int, parts: int, ours: Connection, theirs: Connection
) -> None:
    ours.close()
    with suppress(BrokenPipeError):  # whoever asked has enough
        try:
            with threadpool_limits(1):
                for value in work(part, parts):
                    theirs.send(("value", value))
            theirs.send(("end", None))
        except BrokenPipeError:
            raise
        except Exception as error:
            theirs.send(("error", _to_send(error)))


def _to_send(error: Exception) -> Exception:
    """Any other than ours and the machine's may hold what no pipe takes."""
    if isinstance(error, EndcapError):
        return EndcapError(str(error))
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror or str(error), error.filename)
    return RuntimeError(
        "".join([*traceback.format_exception_only(error), *traceback.format_exception(error)])
    )
