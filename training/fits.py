"""The two fits of every retrieval model, side by side where there are two processes to be had."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from feature_repo.params import load
from feature_repo.side_by_side import in_turn
from training.dataset import Fit

CHOICE = "prior: before rank_from; final: before test_from. Default: both"


@dataclass(frozen=True)
class FitsParams:
    """Section `fits` of params.yaml."""

    processes: int  # 2: prior and final at the same time, each with a model and its data in memory


def fitted(one: Callable[[Fit], str], fit: Fit | None) -> None:
    """Call `one` for `fit`, or for both fits if None, and print what it says of each."""

    def work(part: int, parts: int) -> Iterator[str]:
        for chosen in (get_args(Fit) if fit is None else (fit,))[part::parts]:
            yield one(chosen)

    for line in in_turn(work, load("fits", FitsParams).processes if fit is None else 1):
        print(line)
