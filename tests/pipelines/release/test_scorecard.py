"""What an evaluation leaves beside its report: the headline in git, and the run in MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from mlflow import MlflowClient

from feature_repo.places import EVALUATION, HEADLINE
from pipelines.protocol.metrics import fingerprint
from pipelines.release.scorecard import headline, log_report, write_report

PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"
NUMBERS = ("ndcg_at_12", "ndcg_low", "ndcg_high", "coverage_at_12", "recall_at_12", "novelty", "arp", "gini")


def report(best: float = 0.2) -> dict[str, Any]:
    shares = {"endcap": 0.25, "ease": best, "als": best / 2}
    models = {name: dict.fromkeys(NUMBERS, share) for name, share in shares.items()}
    models["endcap"]["recall_at_120"] = 0.81239
    slices = {"cold_item": {"queries": 4, "ndcg_at_12": 0.1, "coverage_at_12": 0.3}}
    return {"shop": "simulated", "queries": 9, "models": models, "slices": slices, "clicks": {}}


def test_the_headline_is_flat_and_names_what_ours_is_compared_with() -> None:
    assert headline(report()) == {
        "shop": "simulated",
        "queries": 9,
        "ndcg_at_12": 0.25,
        "coverage_at_12": 0.25,
        "recall_at_12": 0.25,
        "recall_at_120": 0.8124,
        "best_single": 0.2,
        "over_best": 1.25,
    }
    assert headline(report(best=0.0))["over_best"] is None


def test_an_evaluation_is_the_parent_run_of_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copy(PARAMS, tmp_path)
    (tmp_path / EVALUATION).parent.mkdir(parents=True)
    write_report(report())
    assert orjson.loads((tmp_path / HEADLINE).read_bytes()) == headline(report())
    (tmp_path / "data/reports/results.parquet").write_bytes(b"rows")
    log_report(report())
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/run/simulated/mlflow.db")
    experiment = client.get_experiment_by_name("endcap")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["evaluation"] == fingerprint(report())
    told = run.data.metrics
    assert (told["test/ndcg_at_12"], told["test/ease/ndcg_at_12"], told["test/cold_item/ndcg_at_12"]) == (
        0.25,
        0.2,
        0.1,
    )
    kept = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert kept == ["evaluate.json", "evaluate.png", "params.yaml", "results.parquet"]
