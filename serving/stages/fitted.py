"""The retrieval models of one fit, and where a shopper stands among their items."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from feature_repo.assemble.matrix import Newborns
from feature_repo.assemble.visitor import History, Visitor
from feature_repo.events import HISTORY
from feature_repo.features.context import encode_context
from serving.stages.index import Index
from serving.stages.tower import UserTower
from serving.types import Floats, Rows

NOBODY = Newborns.of((), ())


@dataclass(frozen=True)
class Models:
    """The retrieval models of one fit; row i of every table is the item ids[i]."""

    ids: list[str]
    item_vectors: Floats  # (N, d), L2-normalised
    index: Index  # over item_vectors, exact or HNSW by the catalogue's size
    tower: UserTower
    covisit: sparse.csr_matrix  # (N, N), row = item of the history, columns = items scored
    next: sparse.csr_matrix  # (N, N), a column of the ranker; as a source it found less
    ease: sparse.csr_matrix  # (N, N)
    together: sparse.csr_matrix  # (N, N), this and the next two are for surfaces that start from products
    carted: sparse.csr_matrix  # (N, N)
    links: sparse.csr_matrix  # (N, N)
    attraction: Floats  # (N,), log of how often an item is clicked against others in its places
    als_items: Floats  # (N, f)


def read_table(file: Path) -> sparse.csr_matrix:
    """An item-item table, float32 (N, N)."""
    return sparse.csr_matrix(sparse.load_npz(file), dtype=np.float32)


def user_vector(models: Models, visitor: Visitor, past: History, newborns: Newborns = NOBODY) -> Floats:
    """The shopper in the space of the items: float32 (d,), from at most the 20 newest contacts."""
    rows, ages, kinds = past.rows[-HISTORY:], past.ages[-HISTORY:], past.kinds[-HISTORY:]
    start = HISTORY - len(rows)
    items = np.zeros((1, HISTORY), np.int64)
    stamps = np.zeros((1, HISTORY), np.float32)
    contacts = np.zeros((1, HISTORY), np.int64)
    items[0, start:], stamps[0, start:], contacts[0, start:] = rows + 1, ages, kinds
    context = np.array([encode_context(visitor.device, visitor.channel, visitor.country)], np.int64)
    unknown = np.zeros((1, HISTORY, models.item_vectors.shape[1]), np.float32)
    if len(newborns.born):
        late = np.flatnonzero(rows >= len(models.ids))
        unknown[0, start + late] = newborns.vectors[rows[late] - len(models.ids)]
    return models.tower.user_vector(items, stamps, contacts, context, unknown)


def als_scores(item_factors: Floats, rows: Rows) -> Floats:
    """Scores of every item for a history `rows` (h,): float32 (N,)."""
    return item_factors @ fold_in(item_factors, rows)


def fold_in(item_factors: Floats, rows: Rows) -> Floats:
    """A history as binary feedback in the space of the factors: float32 (f,), zeros without a history.

    W_u' (W_u W_u' + I)^-1 1 with the whitened factors W (N, f) of collaborative.als; W times it scores every
    item in the order of the exact fold-in, at the price of a system as small as the history.
    """
    seen = item_factors[rows]  # (h, f)
    weights = np.linalg.solve(seen @ seen.T + np.eye(len(rows), dtype=np.float32), np.ones(len(rows)))
    return np.asarray(seen.T @ weights, np.float32)
