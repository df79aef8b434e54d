"""What a release was made of: its manifest, its version in MLflow, the runs of its models, their data."""

from dataclasses import dataclass
from typing import Any

from feature_repo.places import BUNDLES
from pipelines.release.registry import Fit, Registry, RegistryError, Version
from serving.release.state import Release


@dataclass(frozen=True)
class Ancestry:
    """None or empty is what is not known any more; `trouble` says why MLflow could not be asked."""

    digest: str
    manifest: dict[str, Any] | None
    version: Version | None
    fits: list[Fit]
    trouble: str = ""

    @property
    def known(self) -> bool:
        """Whether anything is left of it."""
        return self.manifest is not None or self.version is not None

    def told(self) -> dict[str, Any]:
        """Field -> value, for people and machines; fields that are not known are left out."""
        manifest = self.manifest or {}
        tags = self.version.tags if self.version else {}
        ndcg = manifest.get("metrics", {}).get("models", {}).get("endcap", {}).get("ndcg_at_12")
        fields = {
            "bundle": self.digest,
            "folder": str(BUNDLES / self.digest) if self.manifest else "deleted; MLflow keeps its version",
            "ndcg_at_12": ndcg if ndcg is not None else tags.get("test/ndcg_at_12"),
            "evaluated": tags.get("evaluated"),
            "serves": manifest.get("serves"),
            "data_span": manifest.get("data_span"),
            "feature_service": manifest.get("feature_service"),
            "feature_schema": manifest.get("schema"),
            "git": manifest.get("revision", {}).get("git"),
            "mlflow_version": self.version and self.version.number,
            "mlflow_run": self.version and self.version.run,
            "fits": [fit_told(fit) for fit in self.fits],
            "trouble": self.trouble,
        }
        return {name: value for name, value in fields.items() if value}


def fit_told(fit: Fit) -> dict[str, Any]:
    """The run of a model: what it read, by MD5 as dvc.lock has it, and at which revision."""
    inputs = {name.removeprefix("input."): md5 for name, md5 in fit.tags.items() if name.startswith("input.")}
    kept = {name: fit.tags[name] for name in ("git", "dvc.lock", "feature_service") if name in fit.tags}
    return {"model": fit.model, "run": fit.run, "inputs": inputs, **kept}


def ancestry(digest: str) -> Ancestry:
    """Of the release `digest`, as far as its folder and MLflow still know it."""
    manifest = Release(digest, str(BUNDLES / digest)).manifest()
    try:
        registry = Registry()
        version = registry.find(digest)
        fits = registry.fits(version.run) if version and version.run else []
    except RegistryError as error:
        return Ancestry(digest, manifest, None, [], str(error))
    return Ancestry(digest, manifest, version, fits)
