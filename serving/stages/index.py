"""The K catalogue vectors nearest to a query that may be shown: exact where that is fast, HNSW above.

Exact search over 12,000 x 64 takes 0.1 ms and has no recall to lose; at a million it takes 24 ms and HNSW
0.4 ms. So the size of the catalogue chooses, by `exact_below`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from feature_repo.assemble.orders import best
from feature_repo.files import alone, whole
from serving.types import Filter, Floats, Rows

_effort: Any = faiss.SearchParametersHNSW  # type: ignore[attr-defined]  # its stubs are older
OVERFETCH, REFILL = (
    2,
    8,
)  # of k: what is looked at, and again so many times as much where too few may be shown


@dataclass(frozen=True)
class IndexParams:
    """Section `index` of params.yaml."""

    exact_below: int  # items; from here on HNSW
    m: int  # links per node and layer
    ef_construction: int  # candidates while a node is linked
    ef_search: int  # candidates while a query is answered; as many as are asked for where these are more


class Exact:
    """One matrix product and a partial sort."""

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors

    def search(self, query: Floats, k: int, may: Filter | None = None) -> tuple[Rows, Floats]:
        """Rows int64 (k,) and inner products float32 (k,), best first; fewer where no more may be shown.

        query float32 (d,). Equal products come in ascending order of row.
        """
        scores: Floats = self._vectors @ query
        asked = k if may is None else OVERFETCH * k
        while True:
            rows = best(scores, asked)
            shown = rows if may is None else rows[may.of(rows)][:k]
            if len(shown) == k or len(rows) == len(scores):
                return shown, scores[shown]
            asked *= REFILL


class Hnsw:
    """Hierarchical navigable small world graph (Malkov and Yashunin 2016, arXiv:1603.09320) of faiss."""

    def __init__(self, vectors: Floats, params: IndexParams, file: Path | None = None) -> None:
        """`file`: where the graph is kept, made by the first process that asks and mapped by all."""
        self._ef_search = params.ef_search
        if file is None:
            self._index = _graph(vectors, params)
            return
        with alone(file.with_suffix(".lock")):
            if not file.exists():
                with whole(file) as draft:
                    faiss.write_index(_graph(vectors, params), str(draft))
        self._index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)

    def search(self, query: Floats, k: int, may: Filter | None = None) -> tuple[Rows, Floats]:
        """See Exact.search. Where few of the nearest may be shown it looks once more, REFILL times as far."""
        for asked in (k,) if may is None else (OVERFETCH * k, OVERFETCH * REFILL * k):
            effort = _effort(efSearch=max(self._ef_search, asked))
            near, found = self._index.search(
                np.ascontiguousarray(query[None], np.float32), asked, params=effort
            )
            rows, scores = found[0].astype(np.int64), near[0]
            shown = rows >= 0
            if may is not None:
                shown &= may.of(rows)
            if np.count_nonzero(shown) >= k:
                break
        rows, scores = rows[shown], scores[shown]
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order]


Index = Exact | Hnsw  # what a release is searched with; built when it is loaded, immutable afterwards


def build(vectors: Floats, params: IndexParams, place: Path | None = None) -> Index:
    """The index of `vectors` float32 (N, d) that the size of the catalogue asks for.

    A graph takes minutes for a million items: with a `place` it is kept beside it and built once.
    """
    if len(vectors) < params.exact_below:
        return Exact(vectors)
    name = f".m{params.m}.ef{params.ef_construction}.graph"
    return Hnsw(vectors, params, place.with_name(place.name + name) if place else None)


def _graph(vectors: Floats, params: IndexParams) -> Any:
    graph = faiss.IndexHNSWFlat(vectors.shape[1], params.m, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = params.ef_construction
    graph.add(np.ascontiguousarray(vectors, np.float32))
    return graph


def top(rows: Rows, score: npt.NDArray[Any], may: Filter, k: int) -> list[int]:
    """Of ascending `rows` (n,) those with the `k` best scores above 0 that may be shown, best first.

    Equal scores come in order of row.
    """
    kept = score > 0
    rows, score = rows[kept], score[kept]
    kept = may.of(rows)
    rows, score = rows[kept], score[kept]
    ordered: list[int] = rows[best(score, k)].tolist()
    return ordered
