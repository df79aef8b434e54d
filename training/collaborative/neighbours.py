"""Item-item tables as they are served: CSR with the best columns of every row."""

import numpy as np
from scipy import sparse


def best_of_dense(block: np.ndarray, warm: np.ndarray, items: int, neighbours: int) -> sparse.csr_matrix:
    """CSR float32 (items, items) from weights (w, w) of the catalogue rows `warm` (w,), the best kept.

    Only positive weights: on merch the 200 largest in absolute value rank no better (NDCG@12 .254 both) and
    retrieve less (recall@120 .728 against .737).
    """
    kept = min(neighbours, len(warm))
    rows, columns, values = [], [], []
    for start in range(0, len(warm), 1024):
        part = block[start : start + 1024]
        best = np.argpartition(-part, kept - 1, axis=1)[:, :kept] if kept else np.empty((len(part), 0), int)
        rows.append(np.repeat(warm[start : start + 1024], kept))
        columns.append(warm[best].ravel())
        values.append(np.take_along_axis(part, best, axis=1).ravel())
    row, column, value = (np.concatenate(p) if p else np.empty(0) for p in (rows, columns, values))
    return _table(row, column, value, items)


def best_of_sparse(table: sparse.csr_matrix, neighbours: int) -> sparse.csr_matrix:
    """The same table with at most `neighbours` positive entries per row, the largest."""
    coo = table.tocoo()
    order = np.lexsort((coo.col, -coo.data, coo.row))
    row = coo.row[order]
    first = np.searchsorted(row, row, side="left")
    keep = np.arange(len(row)) - first < neighbours
    return _table(row[keep], coo.col[order][keep], coo.data[order][keep], table.shape[0])


def _table(row: np.ndarray, column: np.ndarray, value: np.ndarray, items: int) -> sparse.csr_matrix:
    positive = value > 0
    table = sparse.csr_matrix(
        (value[positive].astype(np.float32), (row[positive], column[positive])), shape=(items, items)
    )
    table.sort_indices()
    return table
