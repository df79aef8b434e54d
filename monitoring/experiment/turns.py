"""`endcap rollout history`: each release's turn, from the audit log: who began it and why, how it ended.

A turn begins when a release is registered, put on trial or installed, and ends when it is rolled back,
replaced, taken back or set aside. A release that comes again has another turn.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from feature_repo.clock import instant

WIDTH = 80
UNRECORDED = "(not recorded)"  # entries of versions that did not name the release
Entry = Mapping[str, Any]


@dataclass
class Turn:
    """One release from its beginning to its end; times in microseconds UTC by the clock of Redis."""

    release: str
    began_us: int
    who: str
    why: str
    percents: list[int] = field(default_factory=list)  # of the canary
    champion_us: int | None = None
    ended_us: int | None = None
    how: str = ""  # it ended; empty: it has not
    ended_by: str = ""
    ended_why: str = ""

    @classmethod
    def begun(cls, entry: Entry) -> "Turn":
        """By this entry of the audit."""
        return cls(entry["release"] or UNRECORDED, entry["at_us"], entry["who"], entry["why"])

    def end(self, entry: Entry, how: str) -> None:
        """By this entry of the audit."""
        self.ended_us, self.how = entry["at_us"], how
        self.ended_by, self.ended_why = entry["who"], entry["why"]

    @property
    def now(self) -> str:
        """How it stands, or ended."""
        if self.how:
            return self.how
        if self.champion_us is not None:
            return "serves"
        return f"on trial at {self.percents[-1]} %" if self.percents else "waits for its canary"


def turns(entries: Iterable[Entry]) -> list[Turn]:
    """Of the audit's entries, oldest first; in the order in which they began.

    An entry whose beginning is not among them (the audit has a bound) begins a turn itself.
    """
    told: list[Turn] = []
    waiting: Turn | None = None
    canary: Turn | None = None
    champion: Turn | None = None

    def begin(entry: Entry, known: Turn | None) -> Turn:
        if known and known.release == (entry["release"] or UNRECORDED):
            return known
        told.append(Turn.begun(entry))
        return told[-1]

    for entry in entries:
        what, name = entry["what"], entry["release"] or UNRECORDED
        if what == "register_challenger":
            if waiting and waiting.release != name:
                waiting.end(entry, f"set aside for {name}")
            waiting = begin(entry, waiting)
        elif what in ("start_canary", "advance"):
            canary = begin(entry, canary or waiting)
            waiting = None if waiting is canary else waiting
            canary.percents += [entry["percent"]] if entry["percent"] else []
        elif what == "rollback":
            canary = begin(entry, canary)
            at = f" at {canary.percents[-1]} %" if canary.percents else ""
            canary.end(entry, f"rolled back{at}")
            canary = None
        elif what in ("install", "promote_champion", "revert_to_previous"):
            back = what == "revert_to_previous"
            if canary and back:
                canary.end(entry, f"ended, {name} came back")
            before, champion = (
                champion,
                begin(entry, waiting if what == "install" else None if back else canary),
            )
            if before and before is not champion:
                before.end(entry, f"taken back, {name} serves" if back else f"replaced by {name}")
            if waiting and waiting is not champion:
                waiting.end(entry, "set aside, the champion changed")
            champion.champion_us, canary, waiting = entry["at_us"], None, None
    return told


def run(
    entries: Iterable[Entry],
    ndcg_of: Callable[[str], float | None],
    last: int,
    say: Callable[[str, Any], None],
) -> int:
    """Print the `last` turns, newest first; `entries` of the audit, newest first."""
    found = turns(reversed(list(entries)))
    for turn in reversed(found[-last:]):
        ndcg = ndcg_of(turn.release)
        say(text(turn, ndcg), asdict(turn) | {"now": turn.now, "ndcg_at_12": ndcg})
    if not found:
        say("nothing was ever promoted; `endcap promote` does it", [])
    elif len(found) > last:
        say(f"{len(found) - last} earlier; --last {len(found)} shows them", {"earlier": len(found) - last})
    return 0


def text(turn: Turn, ndcg: float | None) -> str:
    """A turn in lines of at most WIDTH columns."""
    until = _when(turn.ended_us) if turn.ended_us else "now"
    score = "NDCG@12 unknown" if ndcg is None else f"NDCG@12 {ndcg:.3f}"
    steps = f"canary {' > '.join(map(str, turn.percents))} %" if turn.percents else ""
    crowned = f"champion from {_when(turn.champion_us)}" if turn.champion_us else ""
    path = ", ".join(part for part in (steps, crowned, turn.now) if part)
    lines = [f"{turn.release:<16}  {score}  {_when(turn.began_us)} to {until}"]
    lines += _wrapped(path) + _wrapped(f"began by {turn.who}: {turn.why}")
    lines += _wrapped(f"ended by {turn.ended_by}: {turn.ended_why}") if turn.how else []
    return "\n".join(lines)


def _wrapped(line: str) -> list[str]:
    """Indented; a reason is anybody's text, and may hold what a terminal obeys."""
    plain = "".join(c if c.isprintable() else "?" for c in line)
    return textwrap.wrap(plain, WIDTH, initial_indent="  ", subsequent_indent="      ")


def _when(us: int) -> str:
    return f"{instant(us):%Y-%m-%d %H:%M}"
