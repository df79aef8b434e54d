"""Directional co-visits: what shoppers of this item contact next, within one visit."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from training.dataset import Contacts, first_contacts


@dataclass(frozen=True)
class CovisitParams:
    """`item_item.covisit:` and `next:`, directional co-visits."""

    window: int
    distance_decay: float
    backward: float
    kind_weights: tuple[float, ...]
    popularity: float


def fit_covisit(contacts: Contacts, items: int, params: CovisitParams) -> sparse.csr_matrix:
    """CSR float32 (items, items): row = item of the history, column = item scored; not truncated.

    For items i, j of one session, j first contacted d places after i, d <= `window`:

        table[i, j] += kind(j) * distance_decay ** (d - 1)              j after i
        table[j, i] += kind(i) * distance_decay ** (d - 1) * backward   i before j

    then every entry is divided by (total[row] * total[column]) ** popularity, the totals being the sums of
    the undivided table: 0 keeps plain counts, 0.5 is the cosine.

    >>> c = Contacts(*(np.array(a) for a in ([0, 1], [1, 1], [5, 6], [0, 0], [0, 0], [[0, 0, 0]] * 2)))
    >>> fit_covisit(c, 2, CovisitParams(5, 0.8, 0.5, (1.0, 1.0, 1.0), 0.0)).toarray().tolist()
    [[0.0, 1.0], [0.5, 0.0]]
    """
    places = first_contacts(contacts)
    weight = np.array(params.kind_weights)[places.kind - 1]
    parts = []
    for d in range(1, params.window + 1):
        earlier = np.flatnonzero(places.session[d:] == places.session[:-d])
        if not len(earlier):
            break
        later, decay = earlier + d, params.distance_decay ** (d - 1)
        i, j = places.item[earlier], places.item[later]
        for row, column, value in (
            (i, j, weight[later] * decay),
            (j, i, weight[earlier] * decay * params.backward),
        ):
            parts.append(sparse.csr_matrix((value, (row, column)), shape=(items, items)))
    table = sparse.csr_matrix(sum(parts, sparse.csr_matrix((items, items), dtype=np.float64)))
    rows, columns = (np.maximum(np.asarray(table.sum(axis=a)).ravel(), 1e-12) for a in (1, 0))
    scale = [sparse.diags_array(total**-params.popularity) for total in (rows, columns)]
    return sparse.csr_matrix(scale[0] @ table @ scale[1]).astype(np.float32)
