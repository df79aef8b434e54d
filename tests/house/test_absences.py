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
from feature_repo.params import shop
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
from training.two_tower import text, two_tower

ROOT = Path(__file__).resolve().parents[2]
NOTHING_TO_ORDER = ("products but one",)


def home(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A project with the shipped params; the shop is small and its section expects nothing."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["simulate"]["sizes"]["simulated"] = {"departments": 3, "skus": 120, "sessions": 700}
    del params["shops"]["simulated"]["expects"]
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    patch.setenv("ENDCAP_HOME", str(folder))
    patch.chdir(folder)
    return folder


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
    assert not ingest.main()
    assert not validate.main(validate.What.raw)
    build.main()
    text.main()
    als.main()
    item_item.main()
    two_tower.main()
    ranker_data.main()
    assert not validate.main(validate.What.training)
    ranker.main()
    evaluate.main()
    assert not leakage.main()
    assert not gate.main()
    bundle.main()
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
    report = orjson.loads((folder / "data/reports/ingest.json").read_bytes())
    assert report["accepted"]
    if absence in ("impressions", "carts", "purchases", "prices", "categories"):
        assert said.count(f"absent       no {absence}: ") == 1
    if absence in ("anything but orders", "times of day"):
        assert "share their instant with another of their visit" in said


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
    assert order.to_dict() == lines.groupby("session_id")["item_id"].apply(list).to_dict()
