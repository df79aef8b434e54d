"""`endcap interleave`: champion and waiting challenger inside one list, and whose slots are clicked."""

from dataclasses import asdict, replace
from typing import Annotated, Literal

import orjson
import typer
from redis import Redis

from feature_repo.clock import instant
from feature_repo.online.connection import connect
from feature_repo.params import load
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.tail import Tail
from monitoring.trials.preference import Preference, judge
from monitoring.trials.verdicts import Trials
from pipelines.release import aliases
from pipelines.release.assurance import assure
from serving.beside import trial
from serving.beside.trial import INTERLEAVE, InterleaveParams, Trial
from serving.release import state, workers
from serving.release.state import RolloutError

MEANING = {
    "challenger": "its slots are credibly clicked more: the canary may say by how much",
    "champion": "the challenger's slots are credibly clicked less",
    "open": "nothing is known yet; look again whenever you like",
    "early": "too few shoppers have clicked to say anything",
}


def main(
    action: Annotated[Literal["start", "status", "stop"], typer.Argument(help="start, status or stop.")],
    why: Annotated[str, typer.Option(help="start, stop: the reason, for the audit.")] = "by hand",
    share: Annotated[float | None, typer.Option(help="start: of the shoppers, up to 1.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="status: for machines.")] = False,
) -> int:
    """Champion and waiting challenger inside one list, for some shoppers: start, status, stop."""
    redis, params = connect(), load("interleave", InterleaveParams)
    if action == "status":
        return _status(redis, params, json_output)
    act = aliases.act_of(why)
    if action == "stop":
        ended = trial.end(redis, act, INTERLEAVE)
        print(f"{ended.release.digest} is in no list any more" if ended else "nothing is interleaved")
        return 0
    if (release := aliases.waiting_challenger()) is None:
        raise RolloutError(
            "challenger: none is registered; `endcap promote` registers one that passes the gate"
        )
    assure(release)
    params = params if share is None else replace(params, share=share)
    begun = trial.begin(redis, release, params, act, INTERLEAVE)
    print(f"{release.digest} shares the lists of {params.share:.0%} of the shoppers with {begun.champion}")
    print("next: `endcap interleave status`")
    return 0


def _status(redis: Redis, params: InterleaveParams, json_output: bool) -> int:
    now = trial.read(redis, INTERLEAVE)
    champion, challenger = (now.champion, now.release.digest) if now else _last(redis)
    feedback = Feedback(load("feedback", FeedbackParams), journal=True)
    Tail(redis).feed(feedback)
    belief, trials = load("feedback", FeedbackParams).belief, load("trials", Trials)
    found = judge(feedback.exposures(), champion, challenger, params.preference, belief, trials)
    standing = _standing(redis, now)
    if json_output:
        print(orjson.dumps(asdict(found) | {"state": standing}).decode())
        return 0
    print("\n".join(_lines(found, standing, trials.alpha)))
    for one in workers.read(redis):
        if challenger in one.refused:
            print(f"{one.worker} refuses it: {one.refused[challenger]}")
    return 0


def _lines(found: Preference, standing: str, alpha: float) -> list[str]:
    span = f"{instant(found.first):%Y-%m-%d %H:%M} to {instant(found.last):%Y-%m-%d %H:%M}"
    told = [
        f"challenger {found.challenger} beside champion {found.champion}: {standing}",
        f"{found.lists:,} lists of {found.shoppers:,} shoppers, {span}" if found.lists else "no list yet",
        f"clicks: challenger {found.clicks[1]:,}, champion {found.clicks[0]:,}, nobody's {found.nobodys:,}",
    ]
    if found.suspects:
        told.append(f"{found.suspects:,} shoppers left out: they click more than people do")
    interval = f"{found.lower:+.1%} to {found.upper:+.1%}, {1 - alpha:.0%} at all looks together"
    told.append(f"preference {found.estimate:+.1%} ({interval})")
    return [*told, f"verdict: {found.verdict}; {MEANING[found.verdict]}"]


def _standing(redis: Redis, now: Trial | None) -> str:
    if now is None:
        return "ended"
    serves = state.present(redis)
    if serves.challenger is not None or serves.champion.digest != now.champion:
        return "at rest, the rollout has changed; `endcap interleave stop`"
    return f"running, {now.share:.0%} of the shoppers"


def _last(redis: Redis) -> tuple[str, str]:
    """Champion and challenger of what was interleaved last."""
    for entry in state.read_audit(redis, state.AUDIT_KEPT):
        if entry["what"] == "start_interleave":
            return str(entry["numbers"]["champion"]), str(entry["release"])
    raise RolloutError("interleave: nothing ever was; `endcap interleave start` mixes the challenger in")
