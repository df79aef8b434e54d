"""Parts done by several processes: the results, their order and their errors are those of one process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from feature_repo.errors import DataError, EndcapError
from feature_repo.side_by_side import FORKS, in_turn

forking = pytest.mark.skipif(not FORKS, reason="one process on this system")


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_the_results_come_in_one_order_whatever_the_number_of_processes(processes: int) -> None:
    def work(part: int, parts: int) -> Iterator[int]:
        yield from range(part, 7, parts)

    assert list(in_turn(work, processes)) == list(range(7))


@forking
def test_each_part_has_a_process_of_its_own() -> None:
    def work(part: int, parts: int) -> Iterator[int]:
        yield os.getpid()

    assert len({os.getpid(), *in_turn(work, 2)}) == 3


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_ours_keeps_its_words_and_any_other_its_traceback(processes: int) -> None:
    def refused(part: int, parts: int) -> Iterator[int]:
        yield part
        raise DataError("raw/items.parquet", "is missing", next_step="export it again")

    def broken(part: int, parts: int) -> Iterator[int]:
        yield 1 // 0

    with pytest.raises(EndcapError, match="is missing"):
        list(in_turn(refused, processes))
    with pytest.raises((RuntimeError, ZeroDivisionError), match="division") as caught:
        list(in_turn(broken, processes))
    assert "by zero" in str(caught.value).splitlines()[0]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_the_machine_refuses_a_process_is_refused_by_its_name(processes: int) -> None:
    def full(part: int, parts: int) -> Iterator[int]:
        yield part
        raise OSError(errno.ENOSPC, "No space left on device", "data/features/x.parquet")

    with pytest.raises(OSError, match="No space left") as caught:
        list(in_turn(full, processes))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "data/features/x.parquet")


@forking
def test_a_process_that_is_killed_is_told_and_leaves_no_other_behind() -> None:
    def work(part: int, parts: int) -> Iterator[int]:
        yield os.getpid()
        if part == 0:
            os._exit(9)
        while True:
            yield 0

    found = in_turn(work, 2)
    other = [next(found), next(found)][1]
    with pytest.raises(EndcapError, match="allow 1 process in"):
        list(found)
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)
