"""What DVC is told of a shop: its mapping file and its section are dependencies, and nobody simulates it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from feature_repo import params
from feature_repo.params import refuse_stale
from feature_repo.places import EVENT_LOG, LOGS, at
from pipelines import cli
from pipelines.ingest.shop import choose, main
from pipelines.local import process
from pipelines.local.process import Program, StackError

ROOT = Path(__file__).resolve().parents[3]
SECTION = {"adapter": "table", "source": "export", "mapping": "elsewhere/columns.yaml"} | {
    cut: f"2026-01-0{day}T00:00:00Z" for day, cut in enumerate(("rank_from", "valid_from", "test_from"), 1)
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with a `table` shop of orders, whose mapping lies beside its export."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "export").mkdir()
    (tmp_path / "elsewhere").mkdir()
    lines = "".join(f"o{i // 2},P{i % 3},2026-01-0{i % 5 + 1} 1{i % 10}:00\n" for i in range(40))
    (tmp_path / "export/orders.csv").write_text("order,sku,at\n" + lines)
    columns = {"session_id": "order", "item_id": "sku", "event_ts": "at"}
    part = {"file": "orders.csv", "columns": columns, "defaults": {"type": "purchase_completed"}}
    write(tmp_path / "elsewhere/columns.yaml", {"events": part | {"timezone": "UTC"}})
    write_section(tmp_path, SECTION)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, values: Any) -> None:
    path.write_text(yaml.safe_dump(values))


def write_section(home: Path, section: dict[str, Any]) -> None:
    values = yaml.safe_load((home / "params.yaml").read_text())
    values["shops"]["orders"] = section
    write(home / "params.yaml", values)


def stages(home: Path) -> dict[str, Any]:
    with Repo.init(str(home), no_scm=True, force=True) as repo:
        return {stage.name: stage for stage in repo.index.stages}


def test_a_mapping_outside_the_export_is_a_dependency_and_so_is_the_section(home: Path) -> None:
    choose("orders")
    found = stages(home)
    named = {str(dep) for dep in found["ingest"].deps}
    assert {"elsewhere/columns.yaml", "export"} <= named
    (ours,) = [dep for dep in found["ingest"].deps if str(dep) == "params.yaml"]
    assert "shops.orders" in ours.params
    assert not [name for name in found if name.startswith("simulate")]


def test_what_a_shop_wrote_down_goes_with_it_and_comes_back(home: Path) -> None:
    choose("simulated")
    at(EVENT_LOG).mkdir(parents=True, exist_ok=True)
    (at(EVENT_LOG) / ".gitignore").write_text("*")
    (at(EVENT_LOG) / "1-2.parquet").write_bytes(b"of the simulated shop")
    choose("orders")
    held = {file.name: [one.name for one in file.iterdir()] for file in at(LOGS).iterdir()}
    assert held == {"events": [".gitignore"], "items": []}  # nobody trains on another shop's events
    choose("simulated")
    assert (at(EVENT_LOG) / "1-2.parquet").read_bytes() == b"of the simulated shop"
    choose("simulated")  # again: nothing moves
    assert len(list(at(EVENT_LOG).iterdir())) == 2


def test_another_shop_is_not_chosen_while_this_one_runs(home: Path) -> None:
    choose("simulated")
    sleeper = Program("stream", (sys.executable, "-c", "import time; time.sleep(60)"), ready=lambda: True)
    folder = params.shop().run_dir()
    (record,) = process.start([sleeper], folder, 20)
    try:
        with pytest.raises(StackError, match=r"shop: simulated runs \(stream\).*Next: `endcap down`"):
            main("orders", None)
        assert params.shop().name == "simulated"
    finally:
        process.stop(record, folder, 5)
    main("orders", None)
    assert params.shop().name == "orders"


def test_a_simulated_shop_is_simulated_first(home: Path) -> None:
    choose("simulated")
    assert "simulate@simulated" in stages(home)


def test_a_section_that_was_edited_since_is_told_and_taken_over(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    choose("orders")
    refuse_stale(params.shop())
    write_section(home, {**SECTION, "test_from": "2026-01-04T00:00:00Z"})
    assert cli.run(["ingest"]) == 1
    said = capfd.readouterr().err
    assert "endcap: shops.orders.test_from: params.yaml has 2026-01-04" in said
    assert "data/shop.yaml has 2026-01-03" in said and "run `endcap shop orders`" in said
    choose("orders")
    assert params.shop().test_from.day == 4
    assert cli.run(["ingest"]) == 0


def test_the_folder_may_be_another_and_a_shop_may_have_no_section(home: Path) -> None:
    (home / "newer").mkdir()
    choose("orders", home / "newer")
    refuse_stale(params.shop())
    values = yaml.safe_load((home / "data/shop.yaml").read_text())
    write(home / "data/shop.yaml", {**values, "name": "nameless", "test_from": "2026-01-08"})
    refuse_stale(params.shop())
