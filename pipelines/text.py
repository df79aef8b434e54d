"""`endcap text`: sentence vectors of the catalogue, which the item tower reads."""

from __future__ import annotations

import numpy as np

from feature_repo.params import load, root
from training.dataset import read_catalogue
from training.params import TextParams
from training.retrieval.text import encode_texts, spec_texts


def main() -> None:
    """Encode title, category and brand of every item with MiniLM."""
    vectors = encode_texts(spec_texts(read_catalogue()), load("text", TextParams))
    path = root() / "data" / "features" / "text.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors)
    print(f"{path.relative_to(root())}: {len(vectors)} items x {vectors.shape[1]}")
