"""A tiny shop in which every stage up to the bundle has run, every part real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from shops.changed_items import change_items

from feature_repo.offline import build
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
