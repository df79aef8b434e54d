"""What "done" means for a release: sound on disk before the pointer moves, served by the workers after it."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from redis import Redis

from feature_repo.errors import EndcapError
from feature_repo.files import sweep
from feature_repo.params import load, root
from feature_repo.places import BUNDLES, at
from pipelines.release.aliases import ReleaseError, follow
from serving.errors import BundleError
from serving.release import bundle, workers
from serving.release import state as rollout
from serving.release.state import Release, RolloutState

LOOK_S = 0.1


@dataclass(frozen=True)
class ReleaseParams:
    """Section `release` of params.yaml."""

    confirm_s: float  # how long a change waits for the workers to report that they serve it
    bundles_kept: int  # the newest installed ones, beside those that serve, served before or wait


def require_sound(release: Release) -> None:
    """Load the bundle as a worker would: checksums, shop, schema, one answer of each model.

    Raises BundleError for what a worker would refuse.
    """
    path = root() / release.path
    found = bundle.load(path).digest  # compiles the ranker, too, so that no worker has to wait for it
    if found != release.digest:
        raise BundleError(path, "digest", release.digest, found, "install it again with `endcap promote`")


def assure(release: Release) -> None:
    """Raises ReleaseError where the pointer must not go there; it names what else is installed."""
    try:
        require_sound(release)
    except EndcapError as error:
        raise refused(release, error) from error


def refused(release: Release, error: EndcapError) -> ReleaseError:
    """What is said where a release was not sound and the pointer was left alone."""
    others = [one.digest for one in bundle.installed() if one.digest != release.digest]
    named = f" Installed besides, newest first: {', '.join(others)}." if others else ""
    problem = error if (root() / release.path).exists() else f"{release.path} is gone"
    return ReleaseError(f"{release.digest} cannot serve, nothing was changed: {problem}{named}")


def confirm(
    redis: Redis,
    state: RolloutState,
    params: ReleaseParams,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until every live worker says that it serves what `state` names; one sentence for the person.

    A worker that acts on a later state has passed this one. No report at all is no service: nothing to wait
    for. Raises ReleaseError with every worker's word as soon as one has refused, or after `confirm_s`.
    """
    deadline, known = clock() + params.confirm_s, 0
    while True:
        reports = workers.read(redis)
        known = max(known, len(reports))
        late = [r for r in reports if r.version <= state.version and not r.serves(state)]
        if not known:
            return "no worker reports: the service is down, there is nothing to wait for"
        if reports and not late:
            return f"served by {len(reports)} of {len(reports)} workers"
        over = clock() > deadline
        if over or any(report.version == state.version for report in late):
            told = "; ".join(report.line() for report in late) or f"none of {known} reports any more"
            waited = f" after {params.confirm_s:.0f} s" if over else ""
            raise ReleaseError(
                f"workers: {len(reports) - len(late)} of {known} serve version {state.version}{waited}: "
                f"{told}. Redis names champion {state.champion.digest} all the same. Next: `endcap status` "
                "and run/SHOP/logs/service.log; `endcap rollback --to DIGEST` names another"
            )
        sleep(LOOK_S)


def conclude(redis: Redis, state: RolloutState, say: Callable[[str], None]) -> None:
    """Workers first, then the aliases; says what the workers say. Raises what did not follow, all of it."""
    failed: EndcapError | None = None
    try:
        say(confirm(redis, state, load("release", ReleaseParams)))
    except ReleaseError as error:
        failed = error
    try:
        follow(state, redis=redis)
    except EndcapError as error:
        failed = ReleaseError(f"{failed}. And: {error}") if failed else error
    if failed:
        raise failed


def prune(redis: Redis, aliased: Iterable[Release], kept: int) -> list[str]:
    """Delete old bundles: digests that neither Redis nor `aliased` names and that are not the newest `kept`.

    Also what installations that were killed left behind. The newest are kept by their place on the disk: what
    is being installed is among them.
    """
    sweep(at(BUNDLES))
    gone = []
    for release in old(redis, aliased, kept):
        folder = root() / release.path
        half = folder.with_name(f".{folder.name}.{os.getpid()}")  # swept if this process is killed
        folder.rename(half)
        shutil.rmtree(half)
        gone.append(release.digest)
    return gone


def old(redis: Redis, aliased: Iterable[Release], kept: int) -> Iterator[Release]:
    """What `prune` deletes. `aliased`: what MLflow's aliases name, where `endcap restore` goes back to."""
    held = list(aliased)
    for release in bundle.installed()[kept:]:
        state = rollout.read(redis)  # asked anew for each: somebody may go back to one
        serving = [state.champion, state.challenger, state.previous] if state else []
        if release not in [*serving, *held]:
            yield release
