"""`endcap two_tower`: user and item tower in one vector space."""

from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer

from feature_repo.clock import micros
from feature_repo.errors import DataError
from feature_repo.params import load
from feature_repo.places import TEXT, existing
from feature_repo.terminal import progress
from training.dataset import Fit, fitting
from training.fits import CHOICE, fitted
from training.two_tower.export import write_towers
from training.two_tower.fit_towers import Epoch, fit_towers, planned_epochs
from training.two_tower.item_features import Vocabulary, item_features
from training.two_tower.towers import TwoTowerParams


def main(fit: Annotated[Fit | None, typer.Option(help=CHOICE)] = None) -> None:
    """Train the two towers on everything before the fit's cut."""
    fitted(_fit, fit)


def _fit(fit: Fit) -> str:
    params, text_file = load("two_tower", TwoTowerParams), existing(TEXT, "text")
    with (
        fitting("two_tower", fit, params, text_file, service="tower") as job,
        progress(desc=fit, total=params.most_epochs, position=get_args(Fit).index(fit)) as bar,
    ):
        bar.total = planned_epochs(params, len(job.contacts))

        def on_epoch(epoch: Epoch) -> None:
            bar.update()
            bar.set_postfix(ndcg=f"{epoch.ndcg_at_12:.3f}", recall=f"{epoch.recall_at_120:.3f}")
            values = {name: getattr(epoch, name) for name in ("loss", "ndcg_at_12", "recall_at_120")}
            job.run.metrics(values, step=epoch.epoch)

        words = Vocabulary.of(job.catalogue)
        features = item_features(job.catalogue, read_text(text_file, len(job.catalogue)), words)
        towers = fit_towers(job.contacts, features, params, micros(job.cut), on_epoch)
        write_towers(towers, job.catalogue.item_ids, words, job.folder)
    best = max(towers.curves, key=lambda epoch: epoch.ndcg_at_12)
    planned = planned_epochs(params, len(job.contacts))
    trained = f"epoch {best.epoch} of {len(towers.curves)} (at most {planned})"
    return f"two_tower {fit}: {trained}, NDCG@12 {best.ndcg_at_12:.3f}"


def read_text(path: Path, items: int) -> np.ndarray:
    """Sentence vectors of the catalogue. Raises DataError where they are of another number of items."""
    text = np.load(path)
    if len(text) != items:
        problem = f"has {len(text)} vectors for {items} items"
        raise DataError(TEXT, problem, rows=len(text), next_step="run `endcap text` again")
    return text
