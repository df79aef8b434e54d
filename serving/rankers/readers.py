"""Which kind of ranker a file holds: its suffix says so, as feature_repo.places.SUFFIXES has it."""

from pathlib import Path

from serving.rankers import forest
from serving.rankers.boosted import Boosted
from serving.rankers.perceptron import Perceptron
from serving.stages.rank import Ranker


def load(path: Path) -> Ranker:
    """The ranker at `path`, ready to serve. What is no ranker of its kind raises whatever its reader does."""
    return _other(path) or forest.load(path)


def plain(path: Path) -> Ranker:
    """The same, nothing compiled for it: for what asks once."""
    return _other(path) or forest.trees(path)


def _other(path: Path) -> Ranker | None:
    if path.suffix == ".json":
        return Boosted(path)
    return Perceptron(path) if path.suffix == ".onnx" else None
