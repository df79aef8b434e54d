"""`endcap shadow`: the waiting challenger beside live answers, shown to nobody; what it would have shown."""

import time
from dataclasses import replace
from typing import Annotated, Literal

import typer
from redis import Redis

from feature_repo.files import write_json
from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.places import SHADOW, at
from feature_repo.terminal import console
from monitoring.shadow.pairing import Shadowed, measure, objection
from monitoring.shadow.portrait import line, notes, picture, rows
from pipelines.release import aliases
from pipelines.release.assurance import assure
from serving.beside import trial
from serving.beside.trial import ShadowParams
from serving.release import state, workers
from serving.release.state import Act, Release, RolloutError

LOOK_S = 1.0


def main(
    action: Annotated[Literal["start", "report", "stop"], typer.Argument(help="start, report or stop.")],
    why: Annotated[str, typer.Option(help="start, stop: the reason, for the audit.")] = "by hand",
    share: Annotated[float | None, typer.Option(help="start: of the live answers, up to 1.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="start: until there is a report; then stop.")] = False,
    digest: Annotated[str | None, typer.Option(help="report: of another release.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="report: print shadow.json instead.")] = False,
) -> int:
    """Compute the waiting challenger beside live answers, shown to nobody: start, report, stop."""
    redis, params, act = connect(), load("shadow", ShadowParams), aliases.act_of(why)
    if action == "stop":
        ended = trial.end(redis, act)
        print(f"{ended.release.digest} left the shadow" if ended else "nothing is in the shadow")
        return 0
    if action == "report":
        return report(redis, params, digest or _newest(redis), as_json)
    release = aliases.waiting_challenger()
    if release is None:
        raise RolloutError(
            "challenger: none is registered; `endcap promote` registers one that passes the gate"
        )
    params = params if share is None else replace(params, share=share)
    if wait:
        found = rehearse(redis, release, params, act)
        print(line(found))
        return int(bool(objection(found, params)))
    assure(release)
    trial.begin(redis, release, params, act)
    print(f"{release.digest} is computed beside {params.share:.0%} of the answers, and shown to nobody")
    print("next: `endcap shadow report`, then `endcap rollout start`")
    return 0


def rehearse(redis: Redis, release: Release, params: ShadowParams, act: Act) -> Shadowed:
    """In the shadow until there are enough pairs, one has failed, no worker is left, or `wait_s` are over.

    What was seen of it before counts: with enough of that nothing is begun.
    """
    found = measure(redis, release.digest)
    if objection(found, params) == "":
        return found
    assure(release)
    trial.begin(redis, release, params, act)
    deadline = time.monotonic() + params.wait_s
    try:
        while time.monotonic() < deadline and workers.read(redis):
            found = measure(redis, release.digest)
            if found.pairs >= params.min_pairs or found.failed:
                break
            time.sleep(LOOK_S)
    finally:
        trial.end(redis, act)
    return found


def report(redis: Redis, params: ShadowParams, digest: str, as_json: bool) -> int:
    """Print and write it; 1 where it speaks against a canary."""
    found = measure(redis, digest)
    against = objection(found, params)
    written = write_json(at(SHADOW), found.json() | {"objection": against})
    if found.alike:
        picture(found, at(SHADOW).with_suffix(".png"))
    if as_json:
        print(written.decode())
        return int(bool(against))
    out = console()
    if found.alike:
        out.print(rows(found))
    for told in notes(found, _off_policy(digest)):
        out.print(told, soft_wrap=True)
    for one in workers.read(redis):
        if digest in one.refused:
            out.print(f"{one.worker} refuses it: {one.refused[digest]}", soft_wrap=True)
    print(f"against a canary: {against}" if against else "nothing speaks against a canary")
    return int(bool(against))


def _newest(redis: Redis) -> str:
    """What is in the shadow, else what was last."""
    if now := trial.read(redis):
        return now.release.digest
    for entry in state.read_audit(redis, state.AUDIT_KEPT):
        if entry["what"] == "start_shadow":
            return str(entry["release"])
    raise RolloutError("shadow: nothing was ever in it; `endcap shadow start` puts the challenger there")


def _off_policy(digest: str) -> str:
    """What the gate told of the release from logged propensities; "" where nothing was logged."""
    found = (Release(digest, f"data/bundles/{digest}").manifest() or {}).get("gate") or {}
    if not (logged := found.get("off_policy")):
        return ""
    best = logged["dr"] or logged["snips"] or logged["ips"]
    told = "{value:.4f} ({low:.4f} to {high:.4f})".format(**best)
    return f"By logged propensities: {told} a slot; {logged['logged']['value']:.4f} of what was shown."
