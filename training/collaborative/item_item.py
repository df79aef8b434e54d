"""`endcap item_item`: the two sparse item-item tables, directional co-visits and EASE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from scipy import sparse

from feature_repo.params import load, shop
from training.collaborative.covisit import CovisitParams, fit_covisit
from training.collaborative.ease import EaseParams, fit_ease
from training.collaborative.neighbours import best_of_dense, best_of_sparse
from training.dataset import Fit, cut_of, fit_dir, raw, read_catalogue, read_contacts, session_matrix
from training.fits import CHOICE, fitted
from training.tracking import tracked


@dataclass(frozen=True)
class ItemItemParams:
    """`item_item:`, the two sparse item-item tables."""

    neighbours: int
    covisit: CovisitParams
    ease: EaseParams


def main(fit: Annotated[Fit | None, typer.Option(help=CHOICE)] = None) -> None:
    """Fit co-visits and EASE and keep the best neighbours of every item."""
    fitted(_fit, fit)


def _fit(fit: Fit) -> str:
    params = load("item_item", ItemItemParams)
    cut = cut_of(fit, shop())
    catalogue = read_catalogue()
    contacts, items = read_contacts(catalogue, cut), len(catalogue)
    logged = {**asdict(params), "cut": cut.isoformat()}
    with tracked(f"item_item {fit}", logged, (raw("events"), raw("items")), "none: raw contacts") as log:
        folder = fit_dir(fit) / "item_item"
        folder.mkdir(parents=True, exist_ok=True)
        weights, warm = fit_ease(session_matrix(contacts, items), params.ease)
        tables = {
            "covisit": best_of_sparse(fit_covisit(contacts, items, params.covisit), params.neighbours),
            "ease": best_of_dense(weights, warm, items, params.neighbours),
        }
        for name, table in tables.items():
            sparse.save_npz(folder / f"{name}.npz", table)
        log.metrics({"warm_items": len(warm), **{f"{name}_entries": t.nnz for name, t in tables.items()}})
        log.artifact(folder)
    return f"item_item {fit}: {len(warm)} warm items, " + ", ".join(f"{n} {t.nnz}" for n, t in tables.items())
