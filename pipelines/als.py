"""`endcap als`: item factors of the sessions x items matrix."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import numpy as np
import typer

from feature_repo.params import load, shop
from training.dataset import Fit, cut_of, fit_dir, raw, read_catalogue, read_contacts, session_matrix
from training.params import AlsParams
from training.retrieval.als import fit_als, whitened
from training.tracking import tracked


def main(fit: Annotated[Fit, typer.Option(help="prior: before rank_from; final: before test_from")]) -> None:
    """Factorise sessions x items by alternating least squares."""
    params = load("als", AlsParams)
    cut = cut_of(fit, shop())
    catalogue = read_catalogue()
    sessions = session_matrix(read_contacts(catalogue, cut), len(catalogue))
    logged = {**asdict(params), "cut": cut.isoformat()}
    with tracked(f"als {fit}", logged, (raw("events"), raw("items")), "none: raw contacts") as log:
        factors = fit_als(sessions, params)
        folder = fit_dir(fit) / "als"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "als_items.npy", whitened(factors, params.alpha, params.regularization))
        log.metrics({"sessions": sessions.shape[0], "warm_items": int(factors.any(axis=1).sum())})
        log.artifact(folder)
    print(f"als {fit}: {sessions.shape[0]} sessions, factors {factors.shape[0]} x {factors.shape[1]}")
