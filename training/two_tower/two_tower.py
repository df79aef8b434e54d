"""`endcap two_tower`: user and item tower in one vector space."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, get_args

import numpy as np
import typer
from tqdm import tqdm

from feature_repo.errors import DataError
from feature_repo.params import load, root, shop
from training.dataset import Fit, cut_of, fit_dir, raw, read_catalogue, read_contacts
from training.fits import CHOICE, fitted
from training.tracking import tracked
from training.two_tower.export import write_towers
from training.two_tower.fit_towers import Epoch, fit_towers
from training.two_tower.item_features import item_features
from training.two_tower.towers import TwoTowerParams


def main(fit: Annotated[Fit | None, typer.Option(help=CHOICE)] = None) -> None:
    """Train the two towers on everything before the fit's cut."""
    fitted(_fit, fit)


def _fit(fit: Fit) -> str:
    params = load("two_tower", TwoTowerParams)
    cut = cut_of(fit, shop())
    catalogue = read_catalogue()
    text_file = root() / "data" / "features" / "text.npy"
    if not text_file.exists():
        raise DataError(text_file, "is missing", next_step="run `endcap text`")
    text = np.load(text_file)
    if len(text) != len(catalogue):
        problem = f"has {len(text)} vectors for {len(catalogue)} items"
        raise DataError(text_file, problem, rows=len(text), next_step="run `endcap text` again")
    contacts = read_contacts(catalogue, cut)
    inputs = (raw("events"), raw("items"), text_file)
    logged = {**asdict(params), "cut": cut.isoformat()}
    with (
        tracked(f"two_tower {fit}", logged, inputs, "tower") as log,
        tqdm(desc=fit, total=params.epochs, position=get_args(Fit).index(fit), disable=None) as bar,
    ):

        def on_epoch(epoch: Epoch) -> None:
            bar.update()
            bar.set_postfix(ndcg=f"{epoch.ndcg_at_12:.3f}", recall=f"{epoch.recall_at_120:.3f}")
            values = {name: getattr(epoch, name) for name in ("loss", "ndcg_at_12", "recall_at_120")}
            log.metrics(values, step=epoch.epoch)

        features = item_features(catalogue, text)
        towers = fit_towers(contacts, features, params, round(cut.timestamp() * 1e6), on_epoch)
        folder = fit_dir(fit) / "two_tower"
        write_towers(towers, catalogue.item_ids, folder)
        log.artifact(folder)
    best = max(towers.curves, key=lambda epoch: epoch.ndcg_at_12)
    return f"two_tower {fit}: epoch {best.epoch} of {len(towers.curves)}, NDCG@12 {best.ndcg_at_12:.3f}"
