"""Releases in MLflow: registered model `endcap`, a version per bundle, who is champion, challenger, previous.

Redis says what serves (serving's state.py); the aliases repeat it for people and for the tracking UI. The
source of a version is its bundle, relative to the project's folder, so that this can be moved: there
`mlflow artifacts download -u models:/endcap@champion` gives the release. Its run is that of its evaluation.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from feature_repo.errors import EndcapError
from feature_repo.params import shop
from serving.release.state import Release, RolloutState
from training.tracking import EXPERIMENT
from training.tracking import Run as Kept

MODEL = "endcap"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"  # its aliases


class RegistryError(EndcapError):
    """MLflow's store cannot be read or written."""


@dataclass(frozen=True)
class Version:
    """One registered release; `number` is MLflow's, counting from 1, `run` that of its evaluation."""

    number: str
    release: Release
    tags: Mapping[str, str]
    run: str | None = None


@dataclass(frozen=True)
class Fit:
    """A model's run; its tags are what training/tracking.py says of it: inputs, git, dvc.lock, service."""

    model: str
    run: str
    tags: Mapping[str, str]


def store() -> Path:
    """The active shop's tracking store, a SQLite file; training/tracking.py writes its runs there."""
    return shop().run_dir().resolve() / "mlflow.db"


class Registry:
    """The model registry of the active shop, or of the store at `uri`."""

    def __init__(self, uri: str | None = None) -> None:
        if uri is None:
            store().parent.mkdir(parents=True, exist_ok=True)
        self._uri = uri or f"sqlite:///{store()}"
        with self._asking("open"):
            self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            try:
                self._client.create_registered_model(MODEL, description="What fills the shop's shelves")
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise

    def register(self, release: Release, tags: Mapping[str, str]) -> Version:
        """A version for this bundle, tagged; the one that exists if the digest was registered before."""
        known = self.find(release.digest)
        with self._asking("register"):
            if known is None:
                named = {"digest": release.digest, "path": release.path, **tags}
                run = self._run_of(release)
                return _version(self._client.create_model_version(MODEL, release.path, run, tags=named))
            for key, value in tags.items():
                self._client.set_model_version_tag(MODEL, known.number, key, value)
            return replace(known, tags={**known.tags, **tags})

    def attach(self, version: Version, *files: Path) -> None:
        """Copies of `files` to the run of its evaluation; nowhere for a release that no run is known of."""
        with self._asking("write"):
            if run := version.run and Kept(self._client, version.run, "gate"):
                for file in files:
                    run.artifact(file)

    def find(self, digest: str) -> Version | None:
        """The version of this bundle, None if it was never registered."""
        with self._asking("search"):
            found = self._client.search_model_versions(f"name='{MODEL}' and tag.digest='{digest}'")
        return _version(found[0]) if found else None

    def fits(self, run: str) -> list[Fit]:
        """The models behind the evaluation `run`, by name: fitted for it, or, where DVC kept them, for one
        before that it continues."""
        found: dict[str, Fit] = {}
        parents: list[str] = [run]
        with self._asking("search"):
            for parent in parents:  # grows while it is walked
                told = self._client.get_run(parent)
                mine = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'FINISHED'"
                newest = ["attributes.start_time DESC"]
                for child in self._client.search_runs([told.info.experiment_id], mine, order_by=newest):
                    name, tags = str(child.info.run_name), dict(child.data.tags)
                    found.setdefault(name, Fit(name, str(child.info.run_id), tags))
                before = told.data.tags.get("continues")
                parents += [before] if before and before not in parents else []
        return [found[name] for name in sorted(found)]

    def runs(self) -> list[Run]:
        """Every run of the experiment, those that are marked as deleted among them; the newest first."""
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            return []
        search = partial(self._client.search_runs, [found.experiment_id], run_view_type=ViewType.ALL)
        with self._asking("search"):
            return _pages(partial(search, order_by=["attributes.start_time DESC"]))

    def versions(self) -> list[Version]:
        """Every registered release."""
        with self._asking("search"):
            found = _pages(partial(self._client.search_model_versions, f"name = '{MODEL}'"))
        return [_version(one) for one in found]

    def mark_deleted(self, run: str) -> None:
        """What `erase_run` has still to end, also where this process is killed before."""
        with self._asking("write"):
            self._client.delete_run(run)

    def erase_run(self, run: str) -> None:
        """The rows of a run that is marked. What `mlflow gc` calls: that wants a server for the process."""
        with self._asking("write"):
            self._client._tracking_client.store._hard_delete_run(run)

    def delete(self, version: Version) -> None:
        """MLflow keeps a row of it that says so."""
        with self._asking("write"):
            self._client.delete_model_version(MODEL, version.number)

    def require(self, state: RolloutState) -> None:
        """Raises RegistryError where the champion was never registered here: the store was lost."""
        if self.find(state.champion.digest) is None:
            raise RegistryError(
                f"registry: {self._uri} does not know {state.champion.digest}, which Redis names as champion "
                f"(version {state.version}): the store was lost or made anew. "
                "`endcap promote --repair` registers again what serves"
            )

    def holder(self, alias: str) -> Version | None:
        """The version that carries the alias, None if none does."""
        with self._asking("read"):
            number = self._client.get_registered_model(MODEL).aliases.get(alias)
            return _version(self._client.get_model_version(MODEL, str(number))) if number else None

    def repeat(self, state: RolloutState) -> None:
        """Aliases as in `state`; a challenger that waits for its canary waits no longer."""
        self.move_aliases({CHAMPION: state.champion, PREVIOUS: state.previous, CHALLENGER: state.challenger})

    def move_aliases(self, releases: Mapping[str, Release | None]) -> None:
        """Alias -> release that has it now, None for nobody. Aliases that are not named stay."""
        for alias, release in releases.items():
            if release is None:
                with self._asking("write"):
                    self._client.delete_registered_model_alias(MODEL, alias)
                continue
            version = self.find(release.digest) or self.register(release, {})
            with self._asking("write"):
                self._client.set_registered_model_alias(MODEL, alias, version.number)

    def _run_of(self, release: Release) -> str | None:
        """The run that logged the evaluation of this bundle; None if none did, as of another store."""
        judged = (release.manifest() or {}).get("gate") or {}
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is None or "evaluation" not in judged:
            return None
        found = self._client.search_runs(
            [experiment.experiment_id], f"tags.evaluation = '{judged['evaluation']}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    @contextmanager
    def _asking(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            first = str(error).partition("\n")[0]
            raise RegistryError(
                f"registry: cannot {verb} {self._uri}: {first}. Redis still says what serves; "
                "`endcap promote --repair` makes the aliases repeat it"
            ) from error


def _pages(search: Callable[..., Any]) -> list[Any]:
    found: list[Any] = []
    page: Any = None
    while page is None or page.token:
        page = search(page_token=page and page.token)
        found += page
    return found


def _version(found: ModelVersion) -> Version:
    tags: dict[str, Any] = dict(found.tags)
    return Version(str(found.version), Release(tags["digest"], tags["path"]), tags, found.run_id or None)
