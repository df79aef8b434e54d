"""`endcap text`: MiniLM sentence vectors of the catalogue, from weights that come with a package: no network.

The encoder is left beside the models: a live shop encodes new items by the same file.
"""

from dataclasses import dataclass

import numpy as np

from feature_repo.params import load
from feature_repo.places import ENCODER, FEATURES, TEXT, at
from training.dataset import Catalogue, read_catalogue
from training.two_tower.encoder import TextEncoder, export


@dataclass(frozen=True)
class TextParams:
    """`text:`, the sentence encoder of the item tower."""

    batch: int
    max_tokens: int


def main() -> None:
    """Encode title, category and brand of every item with MiniLM."""
    params, folder = load("text", TextParams), at(ENCODER)
    export(folder, params.max_tokens)
    vectors = TextEncoder(folder).encode(spec_texts(read_catalogue()), params.batch)
    at(FEATURES).mkdir(parents=True, exist_ok=True)
    np.save(at(TEXT), vectors)
    print(f"{TEXT}: {len(vectors)} items x {vectors.shape[1]}")


def spec_texts(catalogue: Catalogue) -> list[str]:
    """One line per item: "title. category path. brand", what is unknown left out.

    >>> import pyarrow as pa
    >>> mug = {"title": ["Mug"], "category_path": ["Home/Drinkware/"], "brand": [None]}
    >>> spec_texts(Catalogue(pa.table(mug)))
    ['Mug. Home Drinkware']
    """
    columns = [catalogue.table.column(name).to_pylist() for name in ("title", "category_path", "brand")]
    return [
        ". ".join(part for part in (title, " ".join((path or "").replace("/", " ").split()), brand) if part)
        for title, path, brand in zip(*columns, strict=True)
    ]
