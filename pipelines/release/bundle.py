"""`endcap bundle`: towers, tables and ranker of the final fit become one release candidate."""

import os
import shutil
import tempfile
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import orjson
import pandas as pd
import pyarrow.parquet as pq

from feature_repo.clock import DAY_US, instant, micros
from feature_repo.files import read_json, sweep
from feature_repo.params import load, revision, shop
from feature_repo.places import (
    BUNDLES,
    CANDIDATE,
    ENCODER,
    EVALUATION,
    NO_TREES,
    REFERENCE,
    SCORES,
    TREES,
    VERDICT,
    at,
    existing,
    ranker_file,
)
from pipelines.blend.profit import profit
from pipelines.protocol.chosen import RANKER, chosen
from pipelines.protocol.models import TABLES, fit_file
from pipelines.protocol.queries import product_events
from serving.release import bundle
from serving.stages.diversify import Diversify
from serving.stages.odds import Clicks
from serving.surfaces.craft import Surfaces
from training.dataset import read_catalogue
from training.two_tower.encoder import digest

RAIL = 1000  # items of the popularity rail, enough to fill any list after every filter


def main() -> None:
    """Put the final fit, the ranker and their settings into data/bundles/candidate."""
    at(BUNDLES).mkdir(parents=True, exist_ok=True)
    sweep(at(BUNDLES))
    with tempfile.TemporaryDirectory(dir=at(BUNDLES), prefix=".build-", suffix=f".{os.getpid()}") as name:
        folder = Path(name)
        for file in TABLES:
            shutil.copyfile(fit_file("final", file), folder / file)
        order = chosen(load("diversify", Diversify), load("clicks", Clicks))
        ranker = ranker_file(TREES)
        if order.serves == RANKER:
            shutil.copyfile(ranker, folder / ranker.name)
        else:
            (folder / TREES.name).write_text(f"{NO_TREES}{order.serves} was better on validation\n")
        for place in (REFERENCE, SCORES):
            shutil.copyfile(existing(place, "evaluate"), folder / place.name)
        catalogue = read_catalogue()
        (folder / "item_ids.json").write_bytes(orjson.dumps(catalogue.item_ids))
        events = product_events()
        (folder / "rails.json").write_bytes(orjson.dumps({"popular": popular(events, shop().test_from)}))
        pq.write_table(catalogue.table, folder / "catalogue.parquet", compression="zstd")
        fields = {
            "feature_service": "ranker",
            "retrieve": asdict(order.retrieve),
            "clicks": asdict(order.clicks),
            "profit": asdict(profit()),
            "diversify": asdict(order.diversify),
            "surfaces": asdict(load("surfaces", Surfaces)),
            "serves": order.serves,
            "data_span": {
                "from": instant(int(events["event_ts"].min())).isoformat(),
                "until": shop().test_from.isoformat(),
            },
            "revision": {"git": revision()},
            "encoder": digest(existing(ENCODER, "text")),
            "metrics": read_json(existing(EVALUATION, "evaluate"), "run `endcap evaluate`"),
            "gate": read_json(existing(VERDICT, "gate"), "run `endcap gate`"),
        }
        built = bundle.write(folder, fields, Path(tempfile.mkdtemp(dir=folder)))
        target = at(CANDIDATE)
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)
    manifest = orjson.loads((target / "manifest.json").read_bytes())
    print(f"{CANDIDATE}: release {manifest['digest']}, {manifest['items']} items, {order.serves} serves")


def popular(events: pd.DataFrame, before: datetime) -> list[str]:
    """Items by product events of the 14 days before an instant, most first; ties by id."""
    until = micros(before)
    recent = events[(events["event_ts"] < until) & (events["event_ts"] >= until - 14 * DAY_US)]
    counts = recent["item_id"].value_counts()
    ordered: list[str] = sorted(counts.index, key=lambda item: (-counts[item], item))
    return ordered[:RAIL]
