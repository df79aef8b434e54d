"""Tracked runs: one parent per state of the data, lineage, what a failed stage leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from feature_repo.places import EVENTS
from training.tracking import EXPERIMENT, evaluated, tracked

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
    history = client.get_metric_history(towers.info.run_id, "two_tower_final/ndcg_at_12")
    assert [(m.step, m.value) for m in history] == [(1, 0.1), (2, 0.2)]
    assert towers.inputs.dataset_inputs[0].dataset.digest == hashlib.md5(b"monday").hexdigest()
    monkeypatch.chdir(tmp_path)  # places of artifacts are relative to it
    assert [file.path for file in client.list_artifacts(towers.info.run_id)] == ["curves.csv"]
    assert (tmp_path / "run" / "simulated" / "mlartifacts").is_dir()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with its constants, two events and one fitted model."""
    place = tmp_path / "here"
    (place / "data/raw").mkdir(parents=True)
    shutil.copy(PARAMS, place)
    pq.write_table(pa.table({"event_id": ["a", "b"]}), place / EVENTS)
    monkeypatch.setenv("ENDCAP_HOME", str(place))
    with tracked("als final", {}, [place / EVENTS], "none") as run:
        run.metrics({"ndcg_at_12": 0.1})
    return place


def released(home: Path, evaluation: str) -> Run:
    """What `endcap evaluate` and then `endcap gate` log of an evaluation."""
    run = evaluated(evaluation)
    run.metrics({"ndcg_at_12": 0.3, "als/ndcg_at_12": 0.2})
    run.data([home / EVENTS, home / "data/raw/none.parquet"], "training")
    run.artifact(home / "params.yaml")
    evaluated(evaluation, "gate").metrics({"passed": 1.0})
    return client_of(home).get_run(run.id)


def client_of(home: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{home}/run/simulated/mlflow.db")


def test_the_parent_carries_the_release_and_no_name_means_two_metrics(home: Path) -> None:
    parent, client = released(home, "aa"), client_of(home)
    assert parent.data.metrics == {"test/ndcg_at_12": 0.3, "test/als/ndcg_at_12": 0.2, "gate/passed": 1.0}
    (child,) = client.search_runs([parent.info.experiment_id], "tags.`mlflow.parentRunId` LIKE '%'")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.metrics == {"als_final/ndcg_at_12": 0.1}
    (used,) = parent.inputs.dataset_inputs
    assert (used.dataset.name, used.tags[0].value) == ("events", "training")
    assert json.loads(used.dataset.source) == {"uri": "data/raw/events.parquet"}
    assert json.loads(used.dataset.profile)["num_rows"] == 2


def test_what_is_fitted_after_an_evaluation_belongs_to_the_next_release(home: Path) -> None:
    first = released(home, "aa")
    assert released(home, "aa").info.run_id == first.info.run_id
    with tracked("ranker", {}, [], "ranker") as run:
        later = client_of(home).get_run(run.id).data.tags["mlflow.parentRunId"]
    second = released(home, "bb")
    assert second.info.run_id == later != first.info.run_id
    assert second.data.tags["continues"] == first.info.run_id
    third = released(home, "cc")  # nothing was fitted: other settings of the request path
    assert third.data.tags["continues"] == second.info.run_id


def test_artifacts_are_found_where_the_checkout_was_moved_to(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, moved = released(home, "aa").info.run_id, home.with_name("there")
    home.rename(moved)
    monkeypatch.setenv("ENDCAP_HOME", str(moved))
    monkeypatch.chdir(moved)
    client = client_of(moved)
    assert [file.path for file in client.list_artifacts(parent)] == ["params.yaml"]
    assert Path(client.download_artifacts(parent, "params.yaml")).read_bytes() == PARAMS.read_bytes()
    evaluated("aa").artifact(moved / EVENTS)
    assert [file.path for file in client.list_artifacts(parent)] == ["events.parquet", "params.yaml"]
    assert not home.exists()
