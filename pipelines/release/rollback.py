"""`endcap rollback`: the release before the champion serves again, at every worker within a second."""

from typing import Annotated

import typer
from redis import Redis

from feature_repo.online.connection import connect
from pipelines.release.aliases import ReleaseError, act_of, follow
from serving.release import state as rollout
from serving.release.state import Act, RolloutState


def rollback(redis: Redis, act: Act) -> RolloutState:
    """Move the pointer that workers poll to the previous release; a canary under way ends.

    Raises RolloutError without an earlier release, ReleaseError where its folder is gone. The aliases are for
    `follow`, afterwards.
    """
    state = rollout.present(redis)
    if state.previous and not state.previous.manifest():
        raise ReleaseError(f"previous: {state.previous.path} is gone; install another with `endcap promote`")
    return rollout.revert_to_previous(redis, state, act)


def main(why: Annotated[str, typer.Option(help="for the audit log")] = "endcap rollback") -> None:
    """Take the champion back: the release before it serves again, a canary under way ends."""
    redis = connect()
    before = rollout.present(redis)
    state = rollback(redis, act_of(why))
    print(f"champion: {before.champion.digest} -> {state.champion.digest}", flush=True)
    if before.challenger:
        print(f"canary ended: {before.challenger.digest} was at {before.percent} %")
    print(f"`endcap rollback` again goes back to {before.champion.digest}", flush=True)
    follow(state)
