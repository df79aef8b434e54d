"""Shops that lack something go from their export to a served answer, with the params that ship."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
import yaml
from shops.absences import ABSENCES, write_lacking

from feature_repo.clock import micros
from feature_repo.offline import build
from feature_repo.offline.timeline import matrix_at
from feature_repo.params import load as load_params
from feature_repo.params import shop
from feature_repo.persons.privacy import persons
from feature_repo.places import ORDER, TREES, TRIAL, VERDICT
from pipelines.blend import blend, order
from pipelines.ingest import ingest
from pipelines.parity import leakage
from pipelines.protocol import ranker_data
from pipelines.release import bundle, evaluate, gate
from pipelines.simulate import simulate
from pipelines.validate import validate
from serving.pipeline import recommend, visitor_of
from serving.release.bundle import load
from serving.stages.rank import Untrained
from serving.types import Request
from training.collaborative import als, item_item
from training.ranking import ranker
from training.ranking.examples import Examples, fit
from training.ranking.objective import RankerParams
from training.two_tower import text, two_tower

ROOT = Path(__file__).resolve().parents[2]
NOTHING_TO_ORDER = ("products but one",)


def home(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A project with the shipped params; the shop is small, learns all the same, and expects nothing."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["simulate"]["sizes"]["simulated"] = {"departments": 3, "skus": 120, "sessions": 700}
    params["blend"]["min_queries"] = params["order"]["min_queries"] = 30
    del params["shops"]["simulated"]["expects"]
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    patch.setenv("ENDCAP_HOME", str(folder))
    patch.chdir(folder)
    return folder


def to_the_ranker() -> None:
    """Every stage up to the ranker."""
    assert not ingest.main()
    assert not validate.main(validate.What.raw)
    build.main()
    text.main()
    als.main()
    item_item.main()
    two_tower.main()
    blend.main()
    ranker_data.main()
    assert not validate.main(validate.What.training)
    ranker.main()


def to_the_bundle() -> None:
    """Every stage after it; the gate lets the release through."""
    order.main()
    evaluate.main()
    assert not leakage.main()
    assert not gate.main()
    bundle.main()


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        folder = home(tmp_path_factory.mktemp("whole"), patch)
        simulate.main()
    return folder / "data" / "export"


@pytest.mark.parametrize("absence", ABSENCES)
def test_a_shop_without(
    absence: str,
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From ingest to a bundle whose answer is a full list of distinct products that the shop has."""
    folder = home(tmp_path / "home", monkeypatch)
    write_lacking(absence, export, folder / "data" / "export")
    to_the_ranker()
    to_the_bundle()
    said = capsys.readouterr().out

    release = load(folder / "data" / "bundles" / "candidate")
    ids = pq.read_table(folder / "data" / "raw" / "items.parquet")["item_id"].to_pylist()
    now = micros(shop().test_from)
    request = Request("homepage_hero", session_id="new visit")
    slots = recommend(request, release, visitor_of(request, now, None, None), matrix_at(ids, now)).slots
    listed = [slot.item_id for slot in slots]
    assert len(set(listed)) == len(listed) == min(12, len(ids))
    assert set(listed) <= set(ids)
    assert isinstance(release.ranker, Untrained) or absence not in NOTHING_TO_ORDER
    chosen = orjson.loads((folder / "data/models/order/order.json").read_bytes())
    assert release.manifest["serves"] == chosen["serves"]
    if models := chosen["models"]:
        part = models[chosen["best_part"]]["ndcg_at_12"]
        assert models[chosen["serves"]]["ndcg_at_12"] >= 0.995 * part
    assert models or chosen["queries"] < 30
    report = orjson.loads((folder / "data/reports/ingest.json").read_bytes())
    assert report["accepted"]
    if absence in ("impressions", "carts", "purchases", "prices", "categories"):
        assert said.count(f"absent       no {absence}: ") == 1
    if absence in ("anything but orders", "times of day"):
        assert "share their instant with another of their visit" in said


def test_where_trees_do_harm_the_best_part_serves_and_the_gate_lets_it_through_and_names_it(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home(tmp_path / "home", monkeypatch)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["gate"] |= {"min_queries": 30, "min_coverage": 0.1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    write_lacking("carts", export, folder / "data" / "export")
    to_the_ranker()
    train = ranker.read("train")
    upside_down = Examples(train.matrix, train.label.max() - train.label, train.group)
    harmful = fit(upside_down, upside_down, load_params("ranker", RankerParams)).model
    for place in (TREES, TRIAL):
        (folder / place).write_bytes(harmful)
    to_the_bundle()
    chosen = orjson.loads((folder / ORDER).read_bytes())
    serves, models = chosen["serves"], chosen["models"]
    assert serves != "ranker"
    assert models[serves]["ndcg_at_12"] == max(model["ndcg_at_12"] for model in models.values())
    assert models["ranker"]["ndcg_at_12"] < models[serves]["ndcg_at_12"]
    checks = {check["name"]: check for check in orjson.loads((folder / VERDICT).read_bytes())["checks"]}
    assert checks["ndcg_at_12"]["because"].endswith(f" x 0.995; {serves} serves")
    release = load(folder / "data" / "bundles" / "candidate")
    assert isinstance(release.ranker, Untrained) and release.manifest["serves"] == serves
    capsys.readouterr()
    evaluate.main(show_only=True)
    assert f"{serves} serves: {serves} {models[serves]['ndcg_at_12']:.3f}" in capsys.readouterr().out


def test_an_order_of_lines_teaches_what_is_bought_together(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of one order share an instant; each is still asked for from those before it."""
    folder = home(tmp_path / "home", monkeypatch)
    write_lacking("anything but orders", export, folder / "data" / "export")
    ingest.main()
    events = pq.read_table(folder / "data/raw/events.parquet").to_pandas()
    assert not events.duplicated(["session_id", "event_ts"]).any()
    order = events.groupby("session_id")["item_id"].apply(list)
    lines = pq.read_table(folder / "data/export/events.parquet").to_pandas()
    lines["session_id"] = lines["session_id"].map(persons().of)
    assert order.to_dict() == lines.groupby("session_id")["item_id"].apply(list).to_dict()
