"""`endcap item_item`: the sparse item-item tables: co-visits, what comes next, EASE, what goes together.

`next` are co-visits under other settings: of items contacted one directly after the other. `together`,
`carted` and `links` say what is wanted beside an item, not instead of it. With them each item's attraction.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
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
from training.dataset import Catalogue, Contacts, Fit, fitting, session_matrix
from training.fits import CHOICE, fitted

TABLES = ("covisit", "next", "together", "carted", "links", "ease")


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
        warm, cold = write_tables(job.catalogue, job.contacts, job.cut, params, job.folder)
        entries = {name: sparse.load_npz(job.folder / f"{name}.npz").nnz for name in TABLES}
        job.run.metrics({"warm_items": warm, **{f"{name}_entries": count for name, count in entries.items()}})
    told = f"item_item {fit}: {warm} warm items, "
    if warm == params.ease.max_items and cold:
        told = f"item_item {fit}: EASE of the {warm} most contacted items, without {cold} others, "
    return told + ", ".join(f"{name} {count}" for name, count in entries.items())


def write_tables(
    catalogue: Catalogue, contacts: Contacts, cut: datetime, params: ItemItemParams, folder: Path
) -> tuple[int, int]:
    """Write TABLES, CSR float32 (N, N) along `catalogue`, and attraction.npy (N,) to `folder`.

    Gives how many items EASE knows, and how many with contacts it leaves out.
    """
    items, ids = len(catalogue), catalogue.item_ids
    sessions = session_matrix(contacts, items)
    weights, warm = fit_ease(sessions, params.ease)
    fitted = {
        "covisit": fit_covisit(contacts, items, params.covisit),
        "next": fit_covisit(contacts, items, params.next),
        "together": fit_together(contacts, items, params.together),
        "carted": fit_carted(contacts, items, params.carted),
        "links": links(ids, catalogue.table["accessories"].to_pylist()),
    }
    tables = {name: best_of_sparse(table, params.neighbours) for name, table in fitted.items()}
    tables["ease"] = best_of_dense(weights, warm, items, params.neighbours)
    for name in TABLES:
        sparse.save_npz(folder / f"{name}.npz", tables[name])
    attraction = fit_attraction(ids, at(EVENTS), at(IMPRESSIONS), cut, params.attraction)
    np.save(folder / "attraction.npy", attraction)
    return len(warm), len(np.unique(sessions.indices)) - len(warm)
