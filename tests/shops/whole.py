"""A tiny shop in which every stage up to the bundle has run, every part real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from feature_repo.clock import instant, micros
from feature_repo.offline import build, item_log
from feature_repo.params import shop
from feature_repo.places import ITEM_LOG
from pipelines.blend import blend, order
from pipelines.ingest import ingest
from pipelines.parity import leakage
from pipelines.protocol import ranker_data
from pipelines.release import bundle, evaluate, gate
from pipelines.simulate import simulate
from pipelines.validate import validate
from training.collaborative import als, item_item
from training.ranking import ranker
from training.two_tower import text, two_tower

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prior", "final")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder with params of a tiny shop, in which every stage up to the bundle has run."""
    folder = tmp_path_factory.mktemp("home")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["simulate"]["sizes"]["simulated"] = params["simulate"]["sizes"]["tiny"]
    params["two_tower"] |= {"epochs": 2, "most_epochs": 2}
    params["ranker"] |= {"max_rounds": 40, "min_data_in_leaf": 10, "threads": 1}
    params["queries"] |= {"ranker": 400, "evaluate": 250}
    params["gate"] |= {"min_queries": 50, "min_ratio": 0.5, "min_coverage": 0.1}
    params["serving"] |= {"served_share": 1.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(folder))
        patch.chdir(folder)
        assert not simulate.main() and not ingest.main()
        assert not validate.main(validate.What.raw)
        change_items(folder)
        build.main()
        text.main()
        for fit in STAGES:
            als.main(fit)  # type: ignore[arg-type]
            item_item.main(fit)  # type: ignore[arg-type]
            two_tower.main(fit)  # type: ignore[arg-type]
        blend.main()
        ranker_data.main()
        assert not validate.main(validate.What.training)
        ranker.main()
        order.main()
        evaluate.main()
        assert not leakage.main() and not gate.main()
        bundle.main()
        yield folder


def change_items(home: Path) -> None:
    """In the test span: prices move, two products sell out, two are born, one of them and another go."""
    start = micros(shop().test_from)
    events = pq.read_table(home / "data/raw/events.parquet", columns=["event_ts", "item_id"]).to_pandas()
    instants = np.sort(events["event_ts"].astype("datetime64[us, UTC]").astype("int64"))
    instants = instants[instants > start]
    loved = events["item_id"].value_counts().index[:6].tolist()
    title = {"title": "Steel mug with a lid", "category_path": "Home/Kitchen/Mugs", "brand": "Kelmora"}
    born = title | {"price": 12.5, "margin": 0.4, "stock": 30}
    told: list[tuple[int, str, dict[str, Any]]] = [
        (3, "born", born),
        (4, "born for an hour", born | {"title": "Blue lamp"}),
        (6, loved[0], {"price": 3.5}),
        (9, loved[1], {"stock": 0}),
        (12, "born", {"price": 99.0}),
        (15, loved[2], {"deleted": True}),
        (18, "born for an hour", {"deleted": True}),
        (21, loved[1], {"stock": 9}),
        (24, loved[3], {"stock": 0, "price": 1.25}),
        (27, loved[4], {"title": "Another name", "category_path": "Home/Kitchen/Mugs"}),
    ]
    notes = [
        {
            "entry": f"{number}-0",
            "item_id": item,
            "event_ts": instant(int(instants[at])),
            "created_ts": instant(int(instants[at])),
            "said": orjson.dumps({"deleted": False} | said).decode(),
        }
        for number, (at, item, said) in enumerate(told)
    ]
    (home / ITEM_LOG).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(notes, schema=item_log.SCHEMA), home / ITEM_LOG / "0.0-9.0.parquet")
