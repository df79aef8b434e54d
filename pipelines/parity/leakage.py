"""`endcap leakage`: does any stored feature know the future?

At the instants of some recorded events, for the shoppers, visits and items that were busy around them, the
feature store's answers are compared with those of a backfill that was given only the events before.
What differs was computed from later events, or is visible too early. And no row that a training query reads
may hold the items that the query asks for.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from feature_repo.clock import instant
from feature_repo.errors import shorten
from feature_repo.features.catalogue import DECLARED
from feature_repo.files import write_json
from feature_repo.offline.build import main as features
from feature_repo.offline.timeline import historical
from feature_repo.params import load, shop
from feature_repo.places import LEAKAGE, RAW, at, existing, feature_file
from feature_repo.terminal import console, progress, table
from pipelines.parity.culprits import equal
from pipelines.parity.cuts import Cut, choose, home_before
from pipelines.protocol.known import asked_at, query_points


@dataclass(frozen=True)
class LeakageParams:
    """Section `leakage` of params.yaml."""

    seed: int
    cuts: int
    sessions: int
    items: int
    queries: int
    max_known_labels: float


@dataclass(frozen=True)
class Leak:
    """A stored value that is another one without the events from the cut on."""

    view: str
    column: str
    key: str
    at: int
    stored: Any
    earlier: Any

    def __str__(self) -> str:
        stored, earlier = ("no row" if v is None else shorten(v, 60) for v in (self.stored, self.earlier))
        return (
            f"{self.view}.{self.column}: {self.key!r} just before {instant(self.at):%Y-%m-%d %H:%M:%S.%f}:"
            f" {stored} is stored, {earlier} follows from the events before it"
        )


def main(
    for_gate: Annotated[
        bool, typer.Option("--for-gate", help="Exit 0 whatever is found: the gate judges it.")
    ] = False,
) -> int:
    """Compare stored features with what earlier events alone give; 1 and the culprits if they differ."""
    params = load("leakage", LeakageParams)
    for view in DECLARED:
        existing(feature_file(view.name), "features", view.key, *(c.name for c in view.columns))
    cuts = choose(at(RAW), params.cuts, params.sessions, params.items, params.seed)
    compared, leaks = compare(cuts)
    found = Counter((leak.view, leak.column) for leak in leaks)
    title = f"features against a backfill of earlier events, at {len(cuts)} instants"
    shown = table(title, ("view", ">columns", ">rows compared", "columns that know the future"))
    for view in DECLARED:
        wrong = [f"{column} ({n} rows)" for (name, column), n in found.items() if name == view.name]
        rows = str(compared[view.name])
        shown.add_row(view.name, str(len(view.columns)), rows, ", ".join(wrong) or "none")
    console().print(shown)
    for culprit in found:
        print(f"LEAK {next(leak for leak in leaks if (leak.view, leak.column) == culprit)}")
    if leaks:
        print("A row may use what its fold was given by then, under the instant at which it was known. If")
        print("data/features is older than the code, run `endcap features` first.")
    known, asked = known_labels(params)
    print(f"{known} of {asked} training queries read a visit that holds an item which they ask for")
    told = {
        "rows": compared.total(),
        "rows_that_know_the_future": len({(leak.view, leak.key, leak.at) for leak in leaks}),
        "culprits": [f"{view}.{column}" for view, column in found],
        "queries": asked,
        "queries_that_know_their_answer": known,
        "max_known_labels": params.max_known_labels,
    }
    at(LEAKAGE).parent.mkdir(parents=True, exist_ok=True)
    write_json(at(LEAKAGE), told)
    return 0 if for_gate else int(bool(leaks) or known > params.max_known_labels * asked)


def compare(cuts: list[Cut]) -> tuple[Counter[str], list[Leak]]:
    """Rows compared per view, and every value that differs."""
    compared: Counter[str] = Counter()
    leaks: list[Leak] = []
    stored = _answers(cuts)
    for cut, ours in zip(progress(cuts, desc="backfills"), stored, strict=True):
        with home_before(cut):
            features()
            earlier = _answers([cut])[0]
        for view in DECLARED:
            for key, row in ours[view.name].items():
                compared[view.name] += 1
                leaks += _differing(view.name, key, cut.at, row, earlier[view.name][key])
    return compared, leaks


def known_labels(params: LeakageParams) -> tuple[int, int]:
    """Training queries whose stored visit holds an item that they ask for, and how many were looked at.

    Where a shopper touches several items at one instant the order among them is no order in time: such a
    query knows the rest. More than a few are a leak.
    """
    active, rng = shop(), np.random.default_rng(params.seed)
    queries = query_points(active.rank_from, active.test_from, params.queries, rng)
    if not queries:
        return 0, 0
    asked = asked_at([q.now - 1 for q in queries], [(q.user_id, q.session_id) for q in queries])
    rows = historical(asked, "visitor")["session_context"]
    known = [
        bool(q.relevant & set(row["contact_items"])) for q, row in zip(queries, rows, strict=True) if row
    ]
    return sum(known), len(queries)


def _answers(cuts: list[Cut]) -> list[dict[str, dict[str, Any]]]:
    """Per cut: view -> key -> its row just before the cut, by the feature store of the active home."""
    visits = [(cut.at - 1, visit) for cut in cuts for visit in cut.visits]
    items = [(cut.at - 1, item) for cut in cuts for item in cut.items]
    visitors = historical(asked_at([at for at, _ in visits], [visit for _, visit in visits]), "visitor")
    asked = {"item_id": [item for _, item in items], "event_timestamp": [instant(at) for at, _ in items]}
    answers = historical(pd.DataFrame(asked), "items")
    found: list[dict[str, dict[str, Any]]] = []
    for cut in cuts:
        rows: dict[str, dict[str, Any]] = {}
        for view in DECLARED:
            frame = visitors if view.name in visitors else answers
            of_cut = frame[frame["event_timestamp"] == instant(cut.at - 1)]
            pairs = zip(of_cut[view.key], of_cut[view.name], strict=True)
            rows[view.name] = {key: row for key, row in pairs if key is not None}
        found.append(rows)
    return found


def _differing(view: str, key: str, at: int, row: Any, earlier: Any) -> list[Leak]:
    if row is None or earlier is None:
        return [] if row is earlier else [Leak(view, "(the row)", key, at, row, earlier)]
    return [
        Leak(view, column, key, at, value, earlier[column])
        for column, value in row.items()
        if not equal(value, earlier[column], share=1e-9, least=1e-12)
    ]
