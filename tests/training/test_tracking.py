"""Tracked runs: one parent per state of the data, lineage, what a failed stage leaves."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from training.tracking import EXPERIMENT, tracked

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


def test_stages_of_one_state_share_a_parent_and_say_what_they_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    shutil.copy(PARAMS, tmp_path)
    events = tmp_path / "data" / "raw" / "events.parquet"
    events.parent.mkdir(parents=True)
    events.write_bytes(b"monday")
    (tmp_path / "curves.csv").write_text("epoch\n1\n")

    with tracked("two_tower final", {"dim": 64, "covisit": {"window": 10}}, [events], "tower") as run:
        for epoch in (1, 2):
            run.metrics({"ndcg_at_12": epoch / 10}, step=epoch)
        run.artifact(tmp_path / "curves.csv")
    with pytest.raises(ZeroDivisionError), tracked("als final", {}, [events], "none"):
        _ = 1 / 0
    events.write_bytes(b"tuesday")
    with tracked("als final", {}, [events], "none"):
        pass

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/run/simulated/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = [r for r in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" in r.data.tags]
    tuesday, failed, towers = sorted(runs, key=lambda r: r.info.start_time, reverse=True)
    parents = [r.data.tags["mlflow.parentRunId"] for r in (towers, failed, tuesday)]
    assert parents[0] == parents[1] != parents[2]
    assert [r.info.status for r in (towers, failed, tuesday)] == ["FINISHED", "FAILED", "FINISHED"]
    assert towers.data.params == {"dim": "64", "covisit.window": "10"}
    assert towers.data.tags["input.events.parquet"] == hashlib.md5(b"monday").hexdigest()
    assert towers.data.tags["feature_service"] == "tower" and towers.data.tags["git"]
    history = client.get_metric_history(towers.info.run_id, "ndcg_at_12")
    assert [(m.step, m.value) for m in history] == [(1, 0.1), (2, 0.2)]
    assert [file.path for file in client.list_artifacts(towers.info.run_id)] == ["curves.csv"]
    assert (tmp_path / "run" / "simulated" / "mlartifacts").is_dir()
