"""Every ranker.kind on one shop: the same training set, the same candidates, one table.

    ENDCAP_HOME=/path/to/a/shop python benchmarks/rankers.py [--queries 2000] [--kinds lightgbm,mlp]

The shop's pipeline must have run; `make extras` brings XGBoost. Each kind is fitted as `endcap ranker` does.
Its trial, which has not seen validation, orders the candidates of the prior fit on validation's queries,
its model those of the final fit on the test span's, before attraction and diversity. `as retrieved` is the
blend's own order. An answer is 120 rows, by the ranker that a worker loads; the best of seven rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.assemble.visitor import history
from feature_repo.params import load, shop
from feature_repo.places import SUFFIXES
from pipelines.protocol.chosen import learned
from pipelines.protocol.known import Known, answers
from pipelines.protocol.metrics import bootstrap_interval, coverage, ndcg_at
from pipelines.protocol.models import load_models
from pipelines.protocol.queries import QueryParams, make_queries, product_events
from serving.rankers import readers
from serving.stages.eligibility import eligibility
from serving.stages.rank import Ranker, Untrained, rank
from serving.stages.retrieve import Sources, fill
from training.ranking.examples import fit
from training.ranking.objective import RankerParams
from training.ranking.ranker import read

K, ANSWER = 12, 120
PLAIN = "as retrieved"
CALLS, ROUNDS = 200, 7


def judged(
    rankers: Mapping[str, Ranker], models_of: str, after: datetime, until: datetime | None, many: int
) -> dict[str, str]:
    """NDCG@12 with its 95 % interval, and coverage, of each ranker's order of the same candidates."""
    retrieve, models, asked = learned(), load_models(models_of), load("queries", QueryParams)
    events, rng = product_events(), np.random.default_rng(asked.seed)
    queries = make_queries(events, after, until, many, rng)
    row = {item: at for at, item in enumerate(models.ids)}

    def answer(known: Known) -> dict[str, list[int]]:
        _, request, visitor, matrix = known
        past = history(visitor, matrix)
        may = eligibility(request, visitor, matrix, retrieve.bought_days).may
        found = fill(retrieve.quotas, retrieve.k, Sources(retrieve, models, visitor, past, matrix, may))
        lists = {name: rank(one, found, visitor, past, matrix).rows[:K] for name, one in rankers.items()}
        return {name: [*rows.tolist(), *[-1] * (K - len(rows))] for name, rows in lists.items()}

    listed = list(answers(queries, models.ids, K, models_of, answer, asked.processes))
    wanted = [{row[item] for item in query.relevant if item in row} for query in queries]
    counts, told = np.array([len(query.relevant) for query in queries]), {}
    visits, items = np.array([query.session_id for query in queries]), events["item_id"].nunique()
    for name in rankers:
        hits = [[at in of for at in one[name]] for one, of in zip(listed, wanted, strict=True)]
        found = ndcg_at(np.array(hits), counts, K)
        low, high = bootstrap_interval(found, np.random.default_rng(asked.seed), clusters=visits)
        rows = np.array([one[name] for one in listed])
        covered = coverage(rows, max(items, len(np.unique(rows[rows >= 0]))))
        told[name] = f"{found.mean():.4f} ({low:.3f} .. {high:.3f}), {covered:.3f}"
    return told


def microseconds(ranker: Ranker) -> float:
    """Of one answer of 120 rows, a tenth of whose values is unknown."""
    rng, spent = np.random.default_rng(0), []
    rows = rng.normal(size=(ANSWER, len(COLUMNS))).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(CALLS):
            ranker.predict(rows)
        spent.append((time.process_time() - began) / CALLS)
    return 1e6 * min(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--kinds", default=",".join(SUFFIXES))
    options = parser.parse_args()
    active, params, train, valid = shop(), load("ranker", RankerParams), read("train"), read("valid")
    trials: dict[str, Ranker] = {PLAIN: Untrained()}
    finals, cost = dict(trials), {PLAIN: ("", "", "", "")}
    with tempfile.TemporaryDirectory() as name:
        for kind in options.kinds.split(","):
            began = time.process_time()
            fitted = fit(train, valid, replace(params, kind=kind))
            seconds = time.process_time() - began
            model, trial = (Path(name) / f"{kind}-{which}{SUFFIXES[kind]}" for which in ("model", "trial"))
            model.write_bytes(fitted.model)
            trial.write_bytes(fitted.trial)
            finals[kind], trials[kind] = readers.load(model), readers.plain(trial)
            learned_for = f"{fitted.best_round} {fitted.unit}"
            spent = f"{microseconds(finals[kind]):.0f}"
            cost[kind] = learned_for, f"{seconds:.1f}", spent, f"{len(fitted.model) / 1024:.0f}"
        on_valid = judged(trials, "prior", active.valid_from, active.test_from, options.queries)
        on_test = judged(finals, "final", active.test_from, None, options.queries)
    table = Table(title=f"{active.name}: NDCG@12 (95 %), coverage of the ranker's own order")
    for column in ("kind", "validation", "test", "learned for", "fit, CPU s", "answer, us", "KiB"):
        table.add_column(column)
    for kind, told in cost.items():
        table.add_row(kind, on_valid[kind], on_test[kind], *told)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
