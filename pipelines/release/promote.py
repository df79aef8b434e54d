"""`endcap promote`: an admitted bundle becomes the challenger, or the champion where there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from redis import Redis

from feature_repo.files import read_json
from feature_repo.online.connection import connect
from feature_repo.params import load, root
from feature_repo.places import ADMISSION, ADMISSION_PAGE, CANDIDATE, VERDICT, at
from pipelines.gates.bar import GateParams, Verdict
from pipelines.release.admission import admit, install_bundle, made_ready
from pipelines.release.aliases import ReleaseError, act_of, aliased, follow, read_manifest, turn
from pipelines.release.assurance import ReleaseParams, assure, confirm, prune
from pipelines.release.registry import CHALLENGER, CHAMPION, Registry
from serving.release import state as rollout
from serving.release.state import Act, Release

UNSAID = "endcap promote"
ALWAYS_TOLD = ("latency p99 ms", "size MB", "parity of the replay", "active holdout")


@dataclass(frozen=True)
class Promotion:
    """What `promote` did: `release` is now `role`; `replaced` is the champion before it, if there was one."""

    release: Release
    role: str
    version: str  # of the registered model
    replaced: Release | None
    verdict: Verdict = field(compare=False)


def promote(
    folder: Path,
    redis: Redis,
    registry: Registry,
    act: Act,
    *,
    direct: bool = False,
    latest_gate: Mapping[str, Any] | None = None,
    forced: bool = False,
) -> Promotion:
    """Admit and install a bundle: as the champion if `direct` or if there is none, else as the challenger.

    `forced`: whatever the gate says of it; what it said is in the audit and on the registered version.

    Raises GateError if the gate does not allow it, BundleError if a file is not what the manifest says,
    ReleaseError if it cannot be loaded or another promotion runs, RegistryError if MLflow's store lost the
    champion, RolloutError while a canary is under way, RolloutConflict where the champion changed meanwhile.
    """
    with turn():
        return _promote(folder, redis, registry, act, direct, latest_gate, forced)


def _promote(
    folder: Path,
    redis: Redis,
    registry: Registry,
    act: Act,
    direct: bool,
    latest_gate: Mapping[str, Any] | None,
    forced: bool,
) -> Promotion:
    manifest = read_manifest(folder)
    state = rollout.read(redis)
    if state:
        rollout.refuse_canary(state, "promote another")
    champion = state.champion if state else None
    before = champion.manifest() if champion else None
    folders = folder, root() / champion.path if champion else Path()
    verdict = admit(manifest, before, load("gate", GateParams), latest_gate, forced, folders)
    if state:
        registry.require(state)
    release = install_bundle(folder)
    assure(release)
    verdict = made_ready(verdict, release, champion if before else None, redis, forced)
    if said := verdict.shortfall():
        act = replace(act, numbers={**act.numbers, "forced": said})
    registered = registry.register(release, _tags(manifest, verdict))
    registry.attach(registered, at(ADMISSION), at(ADMISSION_PAGE))
    version = registered.number
    if state and champion == release:
        follow(state, redis=redis)
        return Promotion(release, CHAMPION, version, None, verdict)
    if state and not direct:
        follow(state, redis=redis)  # before: what a change that was killed left would take the alias away
        registry.move_aliases({CHALLENGER: release})
        if (now := rollout.present(redis)).version != state.version:  # no challenger outlives its champion
            follow(now, redis=redis)
            raise rollout.RolloutConflict(
                f"rollout: somebody changed it meanwhile, champion {now.champion.digest} "
                f"(version {now.version}); {release.digest} was judged against another. Promote it again"
            )
        rollout.record(redis, "register_challenger", act, release)
        return Promotion(release, CHALLENGER, version, None, verdict)
    follow(rollout.install(redis, release, act), anew=True, redis=redis)
    return Promotion(release, CHAMPION, version, champion, verdict)


def main(
    bundle: Annotated[Path, typer.Option(help="folder of the bundle")] = CANDIDATE,
    direct: Annotated[bool, typer.Option("--direct", help="champion at once, without a canary")] = False,
    fix: Annotated[
        bool, typer.Option("--repair", help="only make the MLflow aliases repeat what Redis serves")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="whatever the gate says; with --why")] = False,
    why: Annotated[str, typer.Option(help="for the audit log")] = UNSAID,
) -> None:
    """Release an admitted bundle: as the challenger, or as the champion if there is none or with --direct."""
    redis = connect()
    if fix:
        state = rollout.present(redis)
        follow(state, anew=True, redis=redis)
        print(f"aliases now repeat what serves: champion {state.champion.digest}")
        return
    if force and why == UNSAID:
        raise ReleaseError('--force: needs a reason for the audit; allowed: --force --why "..."')
    folder = root() / bundle
    ours = folder.resolve() == at(CANDIDATE).resolve()  # other bundles are of other runs
    gate = read_json(at(VERDICT), "run `dvc repro gate`") if ours and at(VERDICT).exists() else None
    done = promote(folder, redis, Registry(), act_of(why), direct=direct, latest_gate=gate, forced=force)
    print(f"{done.release.digest} is {done.role}: {done.release.path}, registered as version {done.version}")
    for check in done.verdict.checks:
        if check.state == "told" or check.name in ALWAYS_TOLD:
            print(f"{check.name} {check.value:.4g}: {check.because}")
    print(f"every line of its gate: {ADMISSION_PAGE}")
    params = load("release", ReleaseParams)
    if done.role == CHALLENGER:
        print("next: `endcap shadow start` has a look at it, `endcap rollout start` shows it to shoppers")
    else:
        if done.replaced:
            print(f"it replaced {done.replaced.digest}; `endcap rollback` goes back to it")
        print(confirm(redis, rollout.present(redis), params))
    if gone := prune(redis, aliased(), params.bundles_kept):
        print(f"deleted old releases: {', '.join(gone)}")


def _tags(manifest: Mapping[str, Any], verdict: Verdict) -> dict[str, str]:
    report = manifest["metrics"]
    ours = report["models"]["endcap"]
    checks = {check.name: [check.value, check.needed] for check in verdict.checks}
    return {
        "gate": "passed" if verdict.passed else "forced",
        "gate_against": verdict.against,
        "gate_checks": orjson.dumps(checks).decode(),
        "gate_told": ", ".join(check.name for check in verdict.checks if check.state == "told"),
        "test/ndcg_at_12": f"{ours['ndcg_at_12']:.6f}",
        "test/coverage_at_12": f"{ours['coverage_at_12']:.6f}",
        "evaluated": f"{report['span']['from']} to {report['span']['to']}",
    }
