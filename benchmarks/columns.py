"""Which 28 columns earn their place: drop one of them, or add one of a pool, and look at validation.

    python benchmarks/columns.py HOME [HOME ...]        a table over the shops of these homes, taken together
    python benchmarks/columns.py HOME --queries 6000    more of the training span, finer differences

A home is a folder whose pipeline has run up to `endcap blend`. Its shop's queries are answered as in `endcap
ranker_data`, trees are fitted on what lies before valid_from, and every number is a difference of NDCG@12 on
validation, in thousandths, beside its standard error over queries; the test span is not looked at. What is
within two standard errors is noise: columns stay that earn in several shops.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
from rich.console import Console
from rich.table import Table

from feature_repo.assemble.crosses import Meeting
from feature_repo.assemble.vectorize import COLUMNS, assemble, compare
from feature_repo.assemble.visitor import history
from feature_repo.clock import micros
from feature_repo.folds.fold import Reading
from feature_repo.folds.parts import been_before
from feature_repo.params import load, shop
from pipelines.protocol.chosen import learned
from pipelines.protocol.known import Known, answers
from pipelines.protocol.metrics import discounts
from pipelines.protocol.models import load_models
from pipelines.protocol.queries import QueryParams, make_queries, product_events
from serving.stages.eligibility import eligibility
from serving.stages.retrieve import retrieve
from training.ranking.objective import RankerParams, settings

ROUNDS = (50, 70)  # trees; the mean of both is told
K = 12
COUNTS = ("exposure_7d", "purchases_30d", "carts_7d", "clicks_7d")


def _count(name: str) -> Any:
    return lambda m: m.matrix.count(name, m.visitor.now, m.rows)


def _rate(above: str, below: str, prior: float) -> Any:
    return lambda m: (_count(above)(m) + 0.05 * prior) / (_count(below)(m) + prior)


def _of_visitor(read: Any) -> Any:
    return lambda m: np.full(len(m.rows), read(m))


POOL = {  # absolute columns that are not among the 28
    **{name: _count(name) for name in COUNTS},
    "cart_rate": _rate("carts_7d", "views_7d", 10.0),
    "trend": _rate("views_24h", "views_7d", 1.0),
    "als_score": lambda m: m.scores.als,
    "department_affinity": lambda m: m.affinity(m.matrix.department),
    "price_band_affinity": lambda m: m.affinity(m.matrix.price_band),
    "contacts": _of_visitor(lambda m: len(m.past.rows)),
    "user_is_known": _of_visitor(lambda m: been_before(m.visitor.user, m.visitor.session_id)),
    "idle_s": _of_visitor(lambda m: (m.visitor.now - m.visitor.session["last_ts"]) / 1e6),
    "session_carts": _of_visitor(lambda m: m.visitor.session["carts"]),
    "hour_of_day": _of_visitor(lambda m: m.visitor.now // 3_600_000_000 % 24),
}
RELATIVE = {  # the same, ranked among the candidates
    "next_place": lambda m: m.scores.next,
    "views_place": lambda m: m.items["views_7d"],
    "views_24h_place": lambda m: m.items["views_24h"],
}


class Shop(NamedTuple):
    """matrix float32 (n, names) · label int8 (n,) · group, many, valid (q,): candidates, wanted, late"""

    names: list[str]
    matrix: np.ndarray
    label: np.ndarray
    group: np.ndarray
    many: np.ndarray
    valid: np.ndarray


def collect(queries: int, path: Path) -> None:
    """Candidates of the active shop's queries with every column, into `path`."""
    active, params, blend, models = shop(), load("queries", QueryParams), learned(), load_models("prior")
    rng = np.random.default_rng(params.seed)
    asked = make_queries(product_events(), active.rank_from, active.test_from, queries, rng)
    pools = [[Reading(n, "", "", (), read) for n, read in pool.items()] for pool in (POOL, RELATIVE)]

    def answer(known: Known) -> tuple[np.ndarray, list[int]]:
        query, request, visitor, matrix = known
        past, may = history(visitor, matrix), eligibility(request, visitor, matrix, blend.bought_days).may
        found = retrieve(blend, models, visitor, past, matrix, may)
        own = assemble(visitor, past, matrix, found.rows, found.scores)
        more = np.empty((len(found.rows), len(POOL) + len(RELATIVE)), np.float32)
        compare(Meeting(visitor, past, matrix, found.rows, found.scores), *pools, more)
        return np.hstack([own, more]), [query.kinds.get(matrix.ids[row], 0) for row in found.rows]

    told = list(answers(asked, models.ids, blend.k, active.name, answer, params.processes))
    np.savez(
        path,
        names=[*COLUMNS, *POOL, *RELATIVE],
        matrix=np.concatenate([matrix for matrix, _ in told]),
        label=np.concatenate([label for _, label in told]).astype(np.int8),
        group=[len(label) for _, label in told],
        many=[len(query.relevant) for query in asked],
        valid=[query.now >= micros(active.valid_from) for query in asked],
    )


def ndcg(shop: Shop, names: Sequence[str], params: RankerParams) -> np.ndarray:
    """NDCG@12 of every query of validation, trees fitted on the rest with the columns `names`: (q,)."""
    matrix = shop.matrix[:, [shop.names.index(name) for name in names]]
    late = np.repeat(shop.valid, shop.group)
    data = lgb.Dataset(matrix[~late], shop.label[~late], group=shop.group[~shop.valid])
    trees = lgb.train(settings(params), data, max(ROUNDS))
    found = np.zeros(int(shop.valid.sum()))
    ideal = np.concatenate([[0.0], np.cumsum(discounts(K))])
    ends = np.cumsum(shop.group[shop.valid])[:-1]
    for rounds in ROUNDS:
        scores = np.split(trees.predict(matrix[late], num_iteration=rounds, num_threads=1), ends)
        for at, (score, label) in enumerate(zip(scores, np.split(shop.label[late], ends), strict=True)):
            hits = label[np.argsort(-score, kind="stable")[:K]] > 0
            found[at] += hits @ discounts(K)[: len(hits)] / len(ROUNDS)
    return found / ideal[np.minimum(shop.many[shop.valid], K)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("homes", nargs="+", type=Path)
    parser.add_argument("--queries", type=int, default=4000, help="of rank_from .. test_from, per shop")
    parser.add_argument("--collect", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.collect:
        return collect(told.queries, told.collect)
    params, shops = replace(load("ranker", RankerParams), learning_rate=0.1, threads=1), []
    with tempfile.TemporaryDirectory() as folder:
        for number, home in enumerate(told.homes):
            path = Path(folder) / f"{number}.npz"
            command = [
                sys.executable,
                __file__,
                str(home),
                "--queries",
                str(told.queries),
                "--collect",
                str(path),
            ]
            subprocess.run(command, check=True, env={**os.environ, "ENDCAP_HOME": str(home.resolve())})
            shops.append(Shop(**np.load(path)))
    shops = [each._replace(names=each.names.tolist()) for each in shops]  # type: ignore[attr-defined]
    before = [ndcg(each, COLUMNS, params) for each in shops]
    heads = [f"{home.name} {found.mean():.4f}" for home, found in zip(told.homes, before, strict=True)]
    table = Table("column", "change", *heads, "all", title="NDCG@12 of validation, thousandths")
    for name in (*COLUMNS, *POOL, *RELATIVE):
        ours = [c for c in COLUMNS if c != name] if name in COLUMNS else [*COLUMNS, name]
        gaps = [1000 * (ndcg(each, ours, params) - found) for each, found in zip(shops, before, strict=True)]
        cells = [f"{gap.mean():+.1f} ± {gap.std() / len(gap) ** 0.5:.1f}" for gap in gaps]
        every = np.mean([gap.mean() for gap in gaps])
        table.add_row(name, "dropped" if name in COLUMNS else "added", *cells, f"{every:+.1f}")
        print(name, *cells, flush=True, file=sys.stderr)
    Console(width=120).print(table)
    return None


if __name__ == "__main__":
    main()
