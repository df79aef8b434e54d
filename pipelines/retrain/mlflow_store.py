"""MLflow's store without the runs of releases that nobody can go back to: rows, artefacts, versions.

As `mlflow gc` does it: a run is marked as deleted, its artefacts go, then its rows. Killed in between, the
next one finds the mark and goes on. What MLflow leaves of them, the datasets and the words "deleted" of
versions, goes too. A version and its runs go together, so `endcap trace` never meets one without the other.
"""

import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from feature_repo.params import shop
from pipelines.release.registry import MODEL, Registry, store
from pipelines.retrain.dvc_cache import Leftover, size
from training.tracking import EXPERIMENT

ORPHANS = (
    "DELETE FROM model_version_tags WHERE (name, version) IN "
    "(SELECT name, version FROM model_versions WHERE current_stage = 'Deleted_Internal')",
    "DELETE FROM model_versions WHERE current_stage = 'Deleted_Internal'",
    "DELETE FROM inputs WHERE destination_type = 'RUN' AND destination_id NOT IN (SELECT run_uuid FROM runs)",
    "DELETE FROM input_tags WHERE input_uuid NOT IN (SELECT input_uuid FROM inputs)",
    "DELETE FROM datasets WHERE dataset_uuid NOT IN (SELECT source_id FROM inputs)",
)
PARENT = "mlflow.parentRunId"


def old(digests: Collection[str], kept: int, remove: bool) -> Iterator[Leftover]:
    """Runs of neither a release of `digests` nor the newest `kept` evaluations, and their versions.

    Raises RegistryError where the store cannot be read.
    """
    registry = Registry()
    client = MlflowClient(tracking_uri=registry.uri, registry_uri=registry.uri)
    if (experiment := client.get_experiment_by_name(EXPERIMENT)) is None:
        return
    runs = _all(client.search_runs, [experiment.experiment_id], run_view_type=ViewType.ALL)
    versions = _all(client.search_model_versions, f"name = '{MODEL}'")
    parents = [run for run in runs if run.data.tags.get("role") == "parent"]
    newest = sorted(parents, key=lambda run: -run.info.start_time)[:kept]
    deleted = {run.info.run_id for run in runs if run.info.lifecycle_stage == "deleted"}
    last = max((int(version.version) for version in versions), default=0)
    held = [one for one in versions if one.tags["digest"] in digests or int(one.version) > last - kept]
    needed = {run.info.run_id for run in newest} | {version.run_id for version in held if version.run_id}
    needed = _with_fits(needed - deleted, runs, registry)
    going = [
        run for run in runs if run.info.run_id not in needed and (_ours(run) or run.info.run_id in deleted)
    ]
    for run in going:
        folder = shop().run_dir() / "mlartifacts" / run.info.run_id
        yield Leftover("runs", f"{run.info.run_name} {run.info.run_id[:8]}", size(folder))
        if remove and run.info.run_id not in deleted:
            client.delete_run(run.info.run_id)
    for version in versions:
        if version not in held and version.run_id not in needed:
            yield Leftover("runs", f"version {version.version}", 0)
            if remove:
                client.delete_model_version(MODEL, version.version)
    if remove:
        _collect(client, [run.info.run_id for run in going])


def _ours(run: Run) -> bool:
    return run.data.tags.get("role") == "parent" or PARENT in run.data.tags


def _with_fits(evaluated: set[str], runs: list[Run], registry: Registry) -> set[str]:
    """These evaluations, what was fitted for them, and of those that they continue what is theirs still."""
    before = {run.info.run_id: run.data.tags.get("continues") for run in runs}
    needed = evaluated | {run.info.run_id for run in runs if run.data.tags.get(PARENT) in evaluated}
    for one in evaluated:
        needed |= {fit.run for fit in registry.fits(one)}
        earlier = before.get(one)
        while earlier:  # links of the chain that `fits` walks
            needed.add(earlier)
            earlier = before.get(earlier)
    return needed


def _collect(client: Any, going: list[str]) -> None:
    for run in going:
        shutil.rmtree(shop().run_dir() / "mlartifacts" / run, ignore_errors=True)
        # What `mlflow gc` calls, which wants a tracking server set for the whole process.
        client._tracking_client.store._hard_delete_run(run)
    with closing(sqlite3.connect(store(), timeout=60)) as database, database:
        for statement in ORPHANS:
            database.execute(statement)


def _all(search: Any, *args: Any, **named: Any) -> list[Any]:
    """All pages of a search."""
    found, token = [], None
    while True:
        page = search(*args, page_token=token, **named)
        found += page
        if not (token := page.token):
            return found
