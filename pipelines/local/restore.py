"""`endcap restore`: a shop whose Redis was emptied, or is another one, serves again as it did.

    rows        from the offline store, and what the log still holds is applied to them once
    release     what MLflow's aliases name as champion and as previous, each verified first

What is in neither is gone: events that were trimmed from the log and are in no export yet, and marks of
event ids, so that an old resend counts once more. A canary that was under way is to be started again.
"""

from collections.abc import Iterator
from typing import Annotated

import typer
from redis import Redis

from feature_repo.errors import EndcapError
from feature_repo.features.store import open_store
from feature_repo.online import changes
from feature_repo.online.connection import connect
from feature_repo.params import load, root
from pipelines.local.stack import bring_up, take_down
from pipelines.release.aliases import ReleaseError, act_of
from pipelines.release.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from pipelines.stream.materialize import MaterializeParams, default_as_of, materialize
from serving.release import bundle, state
from serving.release.state import Release


def main(
    why: Annotated[str, typer.Option(help="for the audit log")] = "endcap restore",
) -> None:
    """Bring rows and release back into a Redis that lost them."""
    with connect() as redis:
        if changes.marked(redis) and state.read(redis):
            print("nothing is missing: Redis holds features and a release")
            return
        if not changes.marked(redis):
            stopped = take_down(("stream",))
            chunk = load("materialize", MaterializeParams).chunk_rows
            try:
                rows = materialize(redis, open_store(), default_as_of(), chunk, fresh=True)
            finally:
                if stopped:
                    bring_up(("stream",))
            print("rows: " + ", ".join(f"{count:,} of {view}" for view, count in rows.items()))
        if state.read(redis) is None:
            for line in point(redis, Registry(), why):
                print(line)


def point(redis: Redis, registry: Registry, why: str) -> Iterator[str]:
    """Let workers serve what MLflow's aliases name; what was done, line by line.

    Raises ReleaseError where no bundle is left that can be served.
    """
    found = {alias: _usable(registry, alias) for alias in (PREVIOUS, CHAMPION)}
    usable = [release for release in found.values() if isinstance(release, Release)]
    yield from (f"{alias}: {told}" for alias, told in found.items() if isinstance(told, str))
    if not usable:
        raise ReleaseError(
            "champion: MLflow names no release that is left; release one with `endcap promote`"
        )
    for release in usable:  # the one before it first, so that a rollback finds it
        state.install(redis, release, act_of(why))
    yield f"champion: {usable[-1].digest}"
    if challenger := registry.holder(CHALLENGER):
        digest = challenger.release.digest
        yield f"challenger: {digest} is not on trial; `endcap rollout start` shows it to the first shoppers"


def _usable(registry: Registry, alias: str) -> Release | str | None:
    """The release, or why it cannot be served; None where the alias names none."""
    held = registry.holder(alias)
    if held is None:
        return None
    try:
        digest = bundle.verify(root() / held.release.path)["digest"]
    except EndcapError as error:
        return str(error)
    return held.release if digest == held.release.digest else f"{held.release.path} holds {digest}"
