"""`endcap dead`: entries of the log that no fold could take, with the reason; and another try at them."""

from collections import Counter
from typing import Annotated, Any, NamedTuple

import typer

from feature_repo.errors import shorten
from feature_repo.eventlog.contract import EventLog
from feature_repo.eventlog.keys import DEAD, StreamParams
from feature_repo.eventlog.open import open_log
from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.terminal import console, table


class DeadLetter(NamedTuple):
    """One entry of the stream `endcap:dead`; `raw` is the event as it stood in the log."""

    number: bytes
    group: str
    partition: int
    position: str
    reason: str
    raw: bytes


def main(
    retry: Annotated[bool, typer.Option("--retry", help="Write them to the log again.")] = False,
    newest: Annotated[int, typer.Option(help="How many to show in full.", min=0)] = 5,
) -> None:
    """Show the events that could not be applied, by reason; --retry after the cause is mended."""
    with connect() as redis:
        letters = dead_letters(redis)
        show(letters, newest)
        if retry and letters:
            log = open_log(redis, load("stream", StreamParams))
            print(f"{send_again(redis, log, letters):,} were written to the log again")
            log.close()


def dead_letters(redis: Any) -> list[DeadLetter]:
    """All of them, the oldest first."""
    letters = []
    for number, found in redis.xrange(DEAD):
        told = (found[name].decode() for name in (b"group", b"partition", b"position", b"reason"))
        group, partition, position, reason = told
        letters.append(DeadLetter(number, group, int(partition), position, reason, found[b"event"]))
    return letters


def send_again(redis: Any, log: EventLog, letters: list[DeadLetter]) -> int:
    """Append each to its partition, for its group alone; what fails again comes back with its new reason.

    A letter goes only after its entry is written: interrupted in between, the entry stands twice and counts
    once.
    """
    for letter in letters:
        log.append(letter.partition, letter.raw, letter.group)
        redis.xdel(DEAD, letter.number)
    return len(letters)


def show(letters: list[DeadLetter], newest: int) -> None:
    """A table by group and reason, then the newest letters themselves."""
    if not letters:
        print("no event was refused by a fold")
        return
    shown = table(f"{len(letters):,} events could not be applied", (">events", "group", "reason"))
    for (group, reason), count in Counter((one.group, one.reason) for one in letters).most_common():
        shown.add_row(f"{count:,}", group, reason)
    out = console()
    out.print(shown)
    for one in letters[len(letters) - newest :]:
        out.print(f"{one.partition}:{one.position} {shorten(one.raw)}", markup=False)
