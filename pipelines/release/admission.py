"""The door of the shop: a bundle comes in when the gate allows it against the champion of now, and whole."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_repo.files import sweep, whole
from feature_repo.params import root, shop
from feature_repo.places import BUNDLES, CANDIDATE, at
from pipelines.protocol.metrics import fingerprint
from pipelines.release.aliases import read_manifest
from pipelines.release.bar import Evaluation, GateError, GateParams, Verdict, judge
from serving.errors import BundleError
from serving.release import bundle
from serving.release.state import Release


def admit(
    manifest: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    params: GateParams,
    latest_gate: Mapping[str, Any] | None = None,
    forced: bool = False,
) -> Verdict:
    """Judge the bundle's own metrics once more, against the champion's manifest.

    The verdict inside the bundle must be of these metrics, and `latest_gate`, the newest gate.json if given,
    must be the same: a gate that failed leaves the candidate of an earlier run on the disk. `forced`: a
    verdict of no is given back and not raised; a missing one, or one of something else, can't be. Raises
    GateError.
    """
    report, gate = manifest.get("metrics"), manifest.get("gate")
    if not report or not gate:
        raise GateError("gate: the bundle carries no verdict; run `dvc repro`, which evaluates and judges it")
    if latest_gate and not latest_gate["passed"] and not forced:
        raise GateError(
            f"gate: the newest one failed, nothing is promoted: {Verdict.from_json(latest_gate).shortfall()}"
        )
    judged = {gate["evaluation"], (latest_gate or gate)["evaluation"]}
    if judged != {fingerprint(report)}:
        raise GateError("gate: the verdict is of another evaluation than the bundle's; run `dvc repro` again")
    if not gate["passed"] and not forced:
        raise GateError(f"gate: it failed, nothing is promoted: {Verdict.from_json(gate).shortfall()}")
    before = champion.get("metrics") if champion else None
    verdict = judge(
        Evaluation.from_report(report), params, Evaluation.from_report(before) if before else None
    )
    if not verdict.passed and not forced:
        raise GateError(f"gate: it fails against the champion of now: {verdict.shortfall()}")
    return verdict


def install_bundle(source: Path) -> Release:
    """Copy a bundle to data/bundles/<digest> and verify the copy: all of it or nothing, once per digest.

    The digest covers what decides an answer. A bundle of the same digest that was evaluated again brings its
    manifest only; a damaged one is replaced. Raises BundleError if a file is not what the manifest says.
    """
    sweep(at(BUNDLES))
    digest = read_manifest(source)["digest"]
    if source.resolve() == at(CANDIDATE).resolve():
        _keep_lock(digest)
    release = Release(digest, str(BUNDLES / digest))
    target = root() / release.path
    if target.exists() and target.samefile(source):
        bundle.verify(target)
        os.utime(target)
        return release
    bundle.verify(source)
    if target.exists() and not _is_sound(target):
        target.rename(target.with_name(f".{digest}.damaged.{os.getpid()}"))
    if target.exists():
        with whole(target / "manifest.json") as draft:
            shutil.copyfile(source / "manifest.json", draft)
    else:
        with whole(target) as draft:
            shutil.copytree(source, draft)
            bundle.verify(draft)
            os.utime(draft)  # from its first moment among the newest, which nobody deletes
    bundle.verify(target)
    shutil.rmtree(target.with_name(f".{digest}.damaged.{os.getpid()}"), ignore_errors=True)
    return release


def locks() -> Path:
    """Where the dvc.lock of each installed candidate is kept: what DVC's cache must hold to make it again."""
    return shop().run_dir() / "locks"


def _keep_lock(digest: str) -> None:
    if (lock := root() / "dvc.lock").exists():
        with whole(locks() / f"{digest}.lock") as draft:
            shutil.copyfile(lock, draft)


def _is_sound(folder: Path) -> bool:
    try:
        bundle.verify(folder)
    except BundleError:
        return False
    return True
