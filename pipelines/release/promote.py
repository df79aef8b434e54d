"""`endcap promote`: an admitted bundle becomes the challenger, or the champion where there is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from redis import Redis

from feature_repo.online.connection import connect
from feature_repo.params import load, root
from feature_repo.places import CANDIDATE, PARITY, VERDICT, at
from pipelines.release.admission import admit, install_bundle
from pipelines.release.aliases import (
    CHALLENGER,
    CHAMPION,
    ReleaseError,
    act_of,
    mirror,
    read_manifest,
    repair,
)
from pipelines.release.bar import GateParams, Verdict
from pipelines.release.registry import Registry
from serving.release import state as rollout
from serving.release.state import Act, Release


@dataclass(frozen=True)
class Promotion:
    """What `promote` did: `release` is now `role`; `replaced` is the champion before it, if there was one."""

    release: Release
    role: str
    version: str  # of the registered model
    replaced: Release | None


def promote(
    folder: Path,
    redis: Redis,
    registry: Registry,
    act: Act,
    *,
    direct: bool = False,
    latest_gate: Mapping[str, Any] | None = None,
) -> Promotion:
    """Admit and install a bundle: as the champion if `direct` or if there is none, else as the challenger.

    Raises GateError if the gate does not allow it, BundleError if a file is not what the manifest says,
    ReleaseError while a canary is under way.
    """
    manifest = read_manifest(folder)
    state = rollout.read(redis)
    if state and state.challenger:
        raise ReleaseError(
            f"challenger: {state.challenger.digest} is on trial at {state.percent} %; "
            "let it end, or stop it with `endcap rollout stop`"
        )
    champion = state.champion if state else None
    before = _manifest_of(champion)
    verdict = admit(manifest, before, load("gate", GateParams), latest_gate)
    release = install_bundle(folder)
    version = registry.register(release, _tags(manifest, verdict)).number
    if state and champion == release:
        mirror(state, registry)
        return Promotion(release, CHAMPION, version, None)
    if state and not direct:
        registry.move_aliases({CHALLENGER: release})
        rollout.record(redis, "register_challenger", act)
        return Promotion(release, CHALLENGER, version, None)
    mirror(rollout.install(redis, release, act), registry)
    return Promotion(release, CHAMPION, version, champion)


def main(
    bundle: Annotated[Path, typer.Option(help="folder of the bundle")] = CANDIDATE,
    direct: Annotated[bool, typer.Option("--direct", help="champion at once, without a canary")] = False,
    fix: Annotated[
        bool, typer.Option("--repair", help="only make the MLflow aliases repeat what Redis serves")
    ] = False,
    why: Annotated[str, typer.Option(help="for the audit log")] = "endcap promote",
) -> None:
    """Release an admitted bundle: as the challenger, or as the champion if there is none or with --direct."""
    redis = connect()
    if fix:
        state = repair(redis)
        print(f"aliases now repeat what serves: champion {state.champion.digest}")
        return
    folder = root() / bundle
    check_replay(folder)
    done = promote(folder, redis, Registry(), act_of(why), direct=direct, latest_gate=_latest_gate(folder))
    print(f"{done.release.digest} is {done.role}: {done.release.path}, registered as version {done.version}")
    if done.role == CHALLENGER:
        print("next: `endcap rollout start` shows it to the first shoppers")
    elif done.replaced:
        print(f"it replaced {done.replaced.digest}; `endcap rollback` goes back to it")


def check_replay(folder: Path) -> None:
    """Raise ReleaseError if the candidate was found to answer otherwise over HTTP than offline.

    A candidate that was not replayed is told so and let through: the gate judges quality, `dvc repro replay`
    proves parity. Other bundles than the pipeline's candidate have no report.
    """
    if folder.resolve() != at(CANDIDATE).resolve():
        return
    path, digest = at(PARITY), read_manifest(folder)["digest"]
    report = orjson.loads(path.read_bytes()) if path.exists() else {}
    if report.get("bundle") != digest:
        print(f"{digest} was not replayed; `dvc repro replay` does it")
    elif not report["passed"]:
        told = ", ".join(f"{share:.3%} of the {name}" for name, share in report["shares"].items())
        raise ReleaseError(
            f"replay: only {told} of {digest} equal the offline ones; {PARITY} names the culprits. Repair it "
            "and run `dvc repro replay`, or name another bundle with --bundle"
        )


def _latest_gate(folder: Path) -> dict[str, Any] | None:
    """The newest verdict where `folder` is the pipeline's candidate: other bundles are of other runs."""
    path = at(VERDICT)
    if not path.exists() or folder.resolve() != at(CANDIDATE).resolve():
        return None
    return orjson.loads(path.read_bytes())


def _manifest_of(champion: Release | None) -> dict[str, Any] | None:
    """None where there is no champion, or its folder was lost: then the baselines are the bar."""
    if champion is None or not (root() / champion.path / "manifest.json").exists():
        return None
    return read_manifest(root() / champion.path)


def _tags(manifest: Mapping[str, Any], verdict: Verdict) -> dict[str, str]:
    report = manifest["metrics"]
    ours = report["models"]["endcap"]
    checks = {check.name: [check.value, check.needed] for check in verdict.checks}
    return {
        "gate": "passed",
        "gate_against": verdict.against,
        "gate_checks": orjson.dumps(checks).decode(),
        "ndcg_at_12": f"{ours['ndcg_at_12']:.6f}",
        "coverage_at_12": f"{ours['coverage_at_12']:.6f}",
        "evaluated": f"{report['span']['from']} to {report['span']['to']}",
    }
