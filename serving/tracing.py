"""What the stages note down of one list, for whoever asks why it is as it is (serving/explain).

A stage that is given a Trace tells it what it decided, and by which figures. Nothing on the way reads it, so
a list is the same with and without; without one a stage pays a comparison with None.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from serving.types import Floats, Rows

Wide = npt.NDArray[np.floating[Any]]


class Explained(Protocol):
    """A ranker that can say what each of its columns adds."""

    def contributions(self, matrix: Floats) -> npt.NDArray[np.float64] | None:
        """(n, 28) -> (n, 29), of each column and, last, of none; None where no column decides."""


class Brought(NamedTuple):
    """A source that was asked: `rows` best first, of which `quota` at most became candidates.

    `deeper(n)`: the n best rows that it would bring, for those that were not among `rows`.
    """

    source: str
    quota: int
    rows: Sequence[int]
    deeper: Callable[[int], Sequence[int]]


class Judged(NamedTuple):
    """The candidates as the ranker got them, in the order of retrieval.

    score = weights[0] * raw + weights[1] * pull · rows (k,) · values (k, 28) · raw, pull (k,)
    """

    rows: Rows
    values: Floats
    raw: Floats
    pull: Floats
    weights: tuple[float, float]
    phase: str
    ranker: Explained


class Choice(NamedTuple):
    """One slot as diversity gave it away: worth = (1 - t) * relevance - t * closeness, the greatest wins.

    place: position in the ranking that won · worth, closeness (k,), -inf where chosen before
    """

    place: int
    worth: Wide
    closeness: Wide


@dataclass(slots=True)
class Trace:
    """Of one list; empty where the models were not asked."""

    brought: list[Brought] = field(default_factory=list)
    judged: Judged | None = None
    filters: Callable[[int], str | None] | None = None  # of a surface: row -> the one that bars it
    relevance: Wide | None = None  # (k,), along the ranking, as diversity weighs it
    choices: list[Choice] = field(default_factory=list)
    capped: set[int] = field(default_factory=set)  # rows that a rule's cap refused
    displaced: int | None = None  # the row whose last slot a draw gave to another
