"""`endcap item_item`: the sparse item-item tables: co-visits, what comes next, EASE, what goes together.

`next` are co-visits under other settings: of items contacted one directly after the other. `together`,
`carted` and `links` say what is wanted beside an item, not instead of it. With them each item's attraction.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from scipy import sparse

from feature_repo.params import load
from feature_repo.places import EVENTS, IMPRESSIONS, at
from training.collaborative.attraction import AttractionParams, fit_attraction
from training.collaborative.covisit import CovisitParams, fit_covisit
from training.collaborative.ease import EaseParams, fit_ease
from training.collaborative.neighbours import best_of_dense, best_of_sparse
from training.collaborative.together import CartedParams, TogetherParams, fit_carted, fit_together, links
from training.dataset import Fit, fitting, session_matrix
from training.fits import CHOICE, fitted


@dataclass(frozen=True)
class ItemItemParams:
    """`item_item:`, the sparse item-item tables."""

    neighbours: int
    covisit: CovisitParams
    next: CovisitParams
    ease: EaseParams
    together: TogetherParams
    carted: CartedParams
    attraction: AttractionParams


def main(fit: Annotated[Fit | None, typer.Option(help=CHOICE)] = None) -> None:
    """Fit co-visits of two kinds, EASE and what goes together, and keep the best neighbours of every item."""
    fitted(_fit, fit)


def _fit(fit: Fit) -> str:
    params = load("item_item", ItemItemParams)
    with fitting("item_item", fit, params) as job:
        contacts, items = job.contacts, len(job.catalogue)
        sessions = session_matrix(contacts, items)
        weights, warm = fit_ease(sessions, params.ease)
        cold = len(np.unique(sessions.indices)) - len(warm)
        counted = {"covisit": params.covisit, "next": params.next}
        tables = {
            name: best_of_sparse(fit_covisit(contacts, items, settings), params.neighbours)
            for name, settings in counted.items()
        }
        wanted = {
            "together": fit_together(contacts, items, params.together),
            "carted": fit_carted(contacts, items, params.carted),
            "links": links(job.catalogue.item_ids, job.catalogue.table["accessories"].to_pylist()),
        }
        tables |= {name: best_of_sparse(table, params.neighbours) for name, table in wanted.items()}
        tables["ease"] = best_of_dense(weights, warm, items, params.neighbours)
        for name, table in tables.items():
            sparse.save_npz(job.folder / f"{name}.npz", table)
        ids, logs = job.catalogue.item_ids, (at(EVENTS), at(IMPRESSIONS))
        np.save(job.folder / "attraction.npy", fit_attraction(ids, *logs, job.cut, params.attraction))
        job.run.metrics({"warm_items": len(warm), **{f"{n}_entries": t.nnz for n, t in tables.items()}})
    told = f"item_item {fit}: {len(warm)} warm items, "
    if len(warm) == params.ease.max_items and cold:
        told = f"item_item {fit}: EASE of the {len(warm)} most contacted items, without {cold} others, "
    return told + ", ".join(f"{name} {table.nnz}" for name, table in tables.items())
