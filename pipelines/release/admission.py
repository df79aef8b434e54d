"""The door of the shop: a bundle comes in when the gate allows it against the champion of now, and whole."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis import Redis

from feature_repo.files import sweep, whole, write_json
from feature_repo.params import load, root, shop
from feature_repo.places import ADMISSION, ADMISSION_PAGE, BUNDLES, CANDIDATE, SCORES, at
from pipelines.gates.bar import GateError, GateParams, Verdict
from pipelines.gates.dossier import write_page
from pipelines.gates.margins import verdict_of
from pipelines.gates.readiness import holdout, parity
from pipelines.gates.scores import Scores
from pipelines.gates.speed import costs
from pipelines.protocol.metrics import fingerprint
from pipelines.release.aliases import read_manifest
from serving.errors import BundleError
from serving.release import bundle
from serving.release.state import Release


def admit(
    manifest: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    params: GateParams,
    latest_gate: Mapping[str, Any] | None = None,
    forced: bool = False,
    folders: tuple[Path, Path] = (Path(), Path()),
) -> Verdict:
    """Judge the bundle's own metrics once more, against the champion's manifest.

    `folders`: where the bundle and the champion lie, for their scores question by question.

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
    scores = Scores.read(folders[0] / SCORES.name, fingerprint(report))
    verdict = verdict_of(report, scores, (before, folders[1]) if before else None, params)
    if not verdict.passed and not forced:
        raise GateError(f"gate: it fails against the champion of now: {verdict.shortfall()}")
    return verdict


def made_ready(
    verdict: Verdict, release: Release, champion: Release | None, redis: Redis, forced: bool = False
) -> Verdict:
    """All lines of an installed release: the gate's, those of `verdict`, and what only a bundle can show.

    Writes data/reports/admission.json and .html, whatever they say. Raises GateError unless `forced`.
    """
    folder = root() / release.path
    gate = read_manifest(folder)["gate"]
    before = root() / champion.path if champion and champion != release else None
    lines = *costs(folder, before, load("gate", GateParams)), parity(release.digest), holdout(redis)
    found = Verdict.from_json(gate).plus(verdict.checks).plus(lines)
    found = replace(found, against=verdict.against)
    told = {"release": release.digest, "passed": found.passed, "forced": forced and not found.passed}
    told |= {"against": found.against, "champion": champion.digest if champion else None}
    write_json(at(ADMISSION), told | {"evaluation": gate["evaluation"], "checks": found.to_json()})
    notes = [f"warning: {off['warning']}"] if (off := gate.get("off_policy", {})).get("warning") else []
    write_page(at(ADMISSION_PAGE), f"Release {release.digest}", found, notes)
    if not found.passed and not forced:
        raise GateError(f"gate: {found.shortfall()}. {ADMISSION_PAGE} shows every line")
    return found


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
