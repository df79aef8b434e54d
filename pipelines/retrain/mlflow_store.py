"""MLflow's store without the runs of releases that nobody can go back to: rows, artefacts, versions.

As `mlflow gc` does it: a run is marked as deleted, its artefacts go, then its rows. Killed in between, the
next one finds the mark and goes on. What MLflow leaves of them, the datasets and the words "deleted" of
versions, goes too. A version and its runs go together, so `endcap trace` never meets one without the other.
"""

import shutil
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from feature_repo.params import shop
from pipelines.release.registry import Registry, store
from pipelines.retrain.dvc_cache import Leftover, size

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
    runs, versions = registry.runs(), registry.versions()
    deleted = {run.info.run_id for run in runs if run.info.lifecycle_stage == "deleted"}
    parents = [run.info.run_id for run in runs if run.data.tags.get("role") == "parent"]
    last = max((int(version.number) for version in versions), default=0)
    held = [one for one in versions if one.release.digest in digests or int(one.number) > last - kept]
    needed = {*parents[:kept], *(version.run for version in held if version.run)} - deleted
    needed = _with_fits(needed, runs, registry)
    ours = deleted | {*parents} | {run.info.run_id for run in runs if PARENT in run.data.tags}
    going = [run.info for run in runs if run.info.run_id in ours - needed]
    for run in going:
        yield Leftover("runs", f"{run.run_name} {run.run_id[:8]}", size(_artefacts(run.run_id)))
        if remove and run.run_id not in deleted:
            registry.mark_deleted(run.run_id)
    for version in versions:
        if version not in held and version.run not in needed:
            yield Leftover("runs", f"version {version.number}", 0)
            if remove:
                registry.delete(version)
    if remove:
        _collect(registry, [run.run_id for run in going])


def _with_fits(evaluated: set[str], runs: Sequence[Any], registry: Registry) -> set[str]:
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


def _collect(registry: Registry, going: Sequence[str]) -> None:
    for run in going:
        shutil.rmtree(_artefacts(run), ignore_errors=True)
        registry.erase_run(run)
    with closing(sqlite3.connect(store(), timeout=60)) as database, database:
        for statement in ORPHANS:
            database.execute(statement)


def _artefacts(run: str) -> Path:
    return shop().run_dir() / "mlartifacts" / run
