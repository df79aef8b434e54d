"""`endcap rollback`: the release before the champion serves again, at every worker within a second.

It names its target and reaches it once: repeated, or started three times at once, it finds the target serving
and says so. Forward again is another wish, and has to be named with --to.
"""

from functools import partial
from typing import Annotated

import typer
from redis import Redis

from feature_repo.online.connection import connect
from pipelines.release.aliases import ReleaseError, act_of
from pipelines.release.assurance import assure, conclude
from serving.release import bundle
from serving.release import state as rollout
from serving.release.state import Act, Release, RolloutConflict, RolloutState

TRIES = 5  # others may change the canary meanwhile; that does not change where to


def rollback(redis: Redis, act: Act, to: str | None = None) -> RolloutState:
    """Move the pointer that workers poll to release `to`; a canary under way ends.

    Without `to`, to the release before the champion, or nowhere where the champion came back by a rollback
    already. Raises RolloutError without an earlier release, ReleaseError where the target is not installed or
    not sound, RolloutConflict where somebody made a third release the champion meanwhile.
    """
    seen = rollout.present(redis)
    target = _target(seen, to)
    if target != seen.champion:
        assure(target)
    state = seen
    for _ in range(TRIES):
        if state.champion == target and state.challenger is None:
            return state
        if state.champion not in (target, seen.champion):
            break
        try:
            if state.champion == target:
                return rollout.rollback(redis, state, act)
            return rollout.revert(redis, state, target, act)
        except RolloutConflict:
            state = rollout.present(redis)
    raise RolloutConflict(
        f"champion: somebody made {state.champion.digest} the champion meanwhile (version {state.version}); "
        f"look at it, then name where to: `endcap rollback --to {target.digest}`"
    )


def _target(state: RolloutState, to: str | None) -> Release:
    if to is None:
        if state.reverted:
            return state.champion
        if state.previous is None:
            raise rollout.RolloutError(
                "previous: there is no earlier release; install one with `endcap promote`"
            )
        return state.previous
    named = [release for release in (state.champion, state.previous, state.challenger) if release]
    known = {release.digest: release for release in (*bundle.installed(), *named)}
    found = [release for digest, release in known.items() if digest.startswith(to)]
    if len(found) != 1:
        many = "several releases begin so" if found else "no such release is installed"
        raise ReleaseError(f"--to: {to!r}: {many}; allowed: {', '.join(known)}")
    return found[0]


def main(
    why: Annotated[str, typer.Option(help="for the audit log")] = "endcap rollback",
    to: Annotated[str | None, typer.Option(help="digest to serve; default: the one before")] = None,
) -> None:
    """Take the champion back: the release before it serves again, a canary under way ends."""
    redis = connect()
    before = rollout.present(redis)
    state = rollback(redis, act_of(why), to)
    if state.version == before.version:
        print(f"champion: {state.champion.digest} serves already (version {state.version})", flush=True)
    else:
        print(f"champion: {before.champion.digest} -> {state.champion.digest}", flush=True)
    if before.challenger:
        print(f"canary ended: {before.challenger.digest} was at {before.percent} %")
    if state.previous:
        print(f"`endcap rollback --to {state.previous.digest}` goes to the one before that", flush=True)
    conclude(redis, state, partial(print, flush=True))
