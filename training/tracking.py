"""MLflow runs of training: one parent per state of the data, a child per fitted model.

The owner of mlflow in training. The store is a SQLite file of the active shop, nothing leaves the machine:

    mlflow ui --backend-store-uri sqlite:///run/simulated/mlflow.db
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from feature_repo.files import alone
from feature_repo.params import revision, root, shop
from feature_repo.places import EVENTS, at

EXPERIMENT = "endcap"


@dataclass(frozen=True)
class Run:
    """One open child run."""

    client: MlflowClient
    id: str

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics; MLflow refuses '@', so it is ndcg_at_12."""
        now = round(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(name, value, now, step) for name, value in values.items()])

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file, or of every file of a folder: a curve, a picture, a model."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path))
        else:
            self.client.log_artifact(self.id, str(path))


@contextmanager
def tracked(
    model: str, params: Mapping[str, Any], inputs: Sequence[Path], feature_service: str
) -> Iterator[Run]:
    """A child run `model` under the parent of this state of data/raw; failed if the block raises.

    `params` are the fields of the stage's section, nested ones logged as "covisit.window". Lineage is kept as
    tags: the MD5 of every file of `inputs`, the git revision, that of dvc.lock and the Feast service that the
    model reads.
    """
    with alone(shop().run_dir() / "mlflow.lock"):  # fits side by side make one store and one parent
        store = (shop().run_dir() / "mlflow.db").resolve()
        client = MlflowClient(tracking_uri=f"sqlite:///{store}")
        experiment = _experiment(client)
        parent = _parent(client, experiment)
    tags = {f"input.{p.name}": digest(p) for p in inputs}
    tags |= {
        "git": revision() or "no checkout",
        "dvc.lock": digest(root() / "dvc.lock"),
        "feature_service": feature_service,
    }
    found = client.create_run(experiment, run_name=model, tags={**tags, "mlflow.parentRunId": parent})
    client.log_batch(found.info.run_id, params=[Param(name, str(value)) for name, value in _flat(params)])
    try:
        yield Run(client, found.info.run_id)
    except BaseException:
        client.set_terminated(found.info.run_id, "FAILED")
        raise
    client.set_terminated(found.info.run_id, "FINISHED")


def digest(path: Path) -> str:
    """MD5 of the file, as DVC writes it into dvc.lock; "absent" if there is no such file."""
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _experiment(client: MlflowClient) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found:
        return str(found.experiment_id)
    artifacts = (shop().run_dir() / "mlartifacts").resolve()
    return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts.as_uri()))


def _parent(client: MlflowClient, experiment: str) -> str:
    """The run that the models of one release share: found by what data/raw holds, else created."""
    data = digest(at(EVENTS))
    known = client.search_runs([experiment], f"tags.data = '{data}' and tags.role = 'parent'", max_results=1)
    if known:
        return str(known[0].info.run_id)
    tags = {"data": data, "role": "parent", "shop": shop().name}
    made = client.create_run(experiment, run_name=f"release on {shop().name} {data[:8]}", tags=tags)
    client.set_terminated(made.info.run_id, "FINISHED")
    return str(made.info.run_id)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
