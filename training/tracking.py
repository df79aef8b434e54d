"""MLflow runs: one parent per evaluated release, a child per model fitted for it.

The owner of mlflow in training. The store is a SQLite file of the active shop, nothing leaves the machine.
Places of artifacts are relative to the project's folder, so that it can be moved; that is where to call

    mlflow ui --backend-store-uri sqlite:///run/simulated/mlflow.db

A parent is open until its evaluation is logged (`evaluated`). What is fitted later opens the next one, tagged
`continues` with the run before it: there are the models that DVC did not fit again. A metric's name begins
with what was asked: `two_tower_prior/...`, `ranker/...` on their own validation, `test/...` the release's.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from feature_repo.files import alone
from feature_repo.params import flat, revision, root, shop
from feature_repo.places import EVENTS, at

EXPERIMENT = "endcap"


@dataclass(frozen=True)
class Run:
    """One open run; `asked`: what its metrics' names begin with."""

    client: MlflowClient
    id: str
    asked: str

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics as "asked/name"; MLflow refuses '@', so it is ndcg_at_12."""
        now = round(time.time() * 1000)
        logged = [Metric(f"{self.asked}/{name}", value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, logged)

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file, or of every file of a folder: a curve, a picture, a model."""
        kept = get_artifact_repository(str(root().resolve() / _artifacts() / self.id / "artifacts"))
        if path.is_dir():
            kept.log_artifacts(str(path))
        else:
            kept.log_artifact(str(path))

    def data(self, files: Sequence[Path], use: str) -> None:
        """Name files as the run's datasets, by their MD5; `use`: "training" or "evaluation"."""
        tags = [InputTag("mlflow.data.context", use)]
        found = [DatasetInput(_dataset(path), tags) for path in files if path.is_file()]
        self.client.log_inputs(self.id, datasets=found)


@contextmanager
def tracked(
    model: str, params: Mapping[str, Any], inputs: Sequence[Path], feature_service: str
) -> Iterator[Run]:
    """A child run `model` under the open parent of this state of data/raw; failed if the block raises.

    `params` are the fields of the stage's section, nested ones logged as "covisit.window". Lineage is kept as
    tags: the MD5 of every file of `inputs`, the git revision, that of dvc.lock and the Feast service that the
    model reads.
    """
    with _opened() as (client, experiment):
        parent = _parent(client, experiment)
    tags = {f"input.{p.name}": digest(p) for p in inputs}
    tags |= {
        "git": revision() or "no checkout",
        "dvc.lock": digest(root() / "dvc.lock"),
        "feature_service": feature_service,
    }
    found = client.create_run(experiment, run_name=model, tags={**tags, "mlflow.parentRunId": parent})
    client.log_batch(found.info.run_id, params=[Param(name, str(value)) for name, value in flat(params)])
    run = Run(client, found.info.run_id, model.replace(" ", "_"))
    run.data(inputs, "training")
    try:
        yield run
    except BaseException:
        client.set_terminated(found.info.run_id, "FAILED")
        raise
    client.set_terminated(found.info.run_id, "FINISHED")


def evaluated(evaluation: str, asked: str = "test") -> Run:
    """The parent of this evaluation, named by its fingerprint: the one that logged it, else the open one.

    From now on it is closed: what is fitted next has another parent.
    """
    with _opened() as (client, experiment):
        known = client.search_runs([experiment], f"tags.evaluation = '{evaluation}'", max_results=1)
        parent = str(known[0].info.run_id) if known else _parent(client, experiment)
        client.set_tag(parent, "evaluation", evaluation)
    return Run(client, parent, asked)


def digest(path: Path) -> str:
    """MD5 of the file, as DVC writes it into dvc.lock; "absent" if there is no such file."""
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def _opened() -> Iterator[tuple[MlflowClient, str]]:
    """Store and experiment, for one process at a time: fits side by side make one store and one parent."""
    with alone(shop().run_dir() / "mlflow.lock"):
        store = (shop().run_dir() / "mlflow.db").resolve()
        client = MlflowClient(tracking_uri=f"sqlite:///{store}")
        yield client, _experiment(client, store)


def _artifacts() -> str:
    """Where artifacts lie, relative to the project's folder."""
    return str(shop().run_dir().relative_to(root()) / "mlartifacts")


def _experiment(client: MlflowClient, store: Path) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found and found.artifact_location == _artifacts():
        return str(found.experiment_id)
    absolute = str(store.parent / "mlartifacts")
    made = str(found.experiment_id if found else client.create_experiment(EXPERIMENT, absolute))
    with closing(sqlite3.connect(store, timeout=60)) as database, database:
        # MLflow makes every local place absolute when it is asked, but takes a relative one as it stands.
        where = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?"
        database.execute(where, (_artifacts(), made))
    return made


def _parent(client: MlflowClient, experiment: str) -> str:
    """The open run that the models of one release share: the newest of what data/raw holds, else created."""
    data = digest(at(EVENTS))
    mine, newest = f"tags.data = '{data}' and tags.role = 'parent'", ["attributes.start_time DESC"]
    known = client.search_runs([experiment], mine, max_results=1, order_by=newest)
    if known and "evaluation" not in known[0].data.tags:
        return str(known[0].info.run_id)
    tags = {"data": data, "role": "parent", "shop": shop().name}
    tags |= {"continues": str(known[0].info.run_id)} if known else {}
    made = client.create_run(experiment, run_name=f"release on {shop().name} {data[:8]}", tags=tags)
    client.set_terminated(made.info.run_id, "FINISHED")
    return str(made.info.run_id)


def _dataset(path: Path) -> Dataset:
    home = root().resolve()
    where = path.resolve().relative_to(home) if path.resolve().is_relative_to(home) else path
    size = {"bytes": path.stat().st_size}
    with suppress(pa.ArrowException):  # no parquet file
        size["num_rows"] = pq.read_metadata(path).num_rows
    source, profile = json.dumps({"uri": str(where)}), json.dumps(size)
    return Dataset(path.stem, digest(path), "local", source, profile=profile)
