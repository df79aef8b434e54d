"""The words of the simulated shop: its category tree, and what products of each branch are made of.

A title is put together from the words of its category, so that a text encoder can tell a frying pan from a
tent and a rustic one from an industrial one without any picture or history. They stand in departments.yaml.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml


@dataclass(frozen=True)
class Leaf:
    """A category without children: its name, the median price in EUR, and the nouns of its titles."""

    name: str
    price: float
    nouns: tuple[str, ...]


@dataclass(frozen=True)
class Department:
    """Six leaves in the order in which one leads to the next: pans to knives to bakeware."""

    group: str
    name: str
    materials: tuple[str, ...]
    sizes: tuple[str, ...]
    leaves: tuple[Leaf, ...]

    def paths(self) -> tuple[str, ...]:
        """Category paths, for example "Home/Kitchen/Pans"."""
        return tuple(f"{self.group}/{self.name}/{leaf.name}" for leaf in self.leaves)


@dataclass(frozen=True)
class Style:
    """A taste that runs through all departments, and the words by which a title shows it."""

    name: str
    adjectives: tuple[str, ...]
    colours: tuple[str, ...]


_T = TypeVar("_T")


def _of(kind: Callable[..., _T], fields: Mapping[str, Any]) -> _T:
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})


_WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
STYLES = tuple(_of(Style, style) for style in _WORDS["styles"])
DEPARTMENTS = tuple(
    _of(Department, one | {"leaves": [_of(Leaf, leaf) for leaf in one["leaves"]]})
    for one in _WORDS["departments"]
)
