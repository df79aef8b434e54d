"""`endcap rollout`: put the challenger on trial, watch it, see where it stands, reckon its cost, stop it."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer
from redis import Redis

from feature_repo.errors import EndcapError
from feature_repo.online.connection import connect
from feature_repo.params import load
from monitoring.experiment import plan
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.watch import Guard, advanced
from pipelines.release import aliases, assurance
from serving.release import state as control
from serving.release.state import Act, Release, RolloutConflict, RolloutError, RolloutState

TRIES = 5  # of a stop that others are in the way of
Action = Literal["start", "watch", "status", "plan", "advance", "stop"]


def main(
    action: Annotated[Action, typer.Argument(help="start, watch, status, plan, advance (by hand) or stop.")],
    why: Annotated[str, typer.Option(help="start, advance, stop: the reason, for the audit.")] = "by hand",
    to: Annotated[int | None, typer.Option(help="advance: to this percentage, once.")] = None,
    until_decided: Annotated[
        bool, typer.Option(help="watch: end with the canary, 1 if rolled back.")
    ] = False,
    poll: Annotated[float, typer.Option(help="watch: seconds between looks.")] = 0.5,
    user_days_per_day: Annotated[float | None, typer.Option(help="plan: traffic, all arms.")] = None,
    ctr: Annotated[float | None, typer.Option(help="plan: clicks per served slot.")] = None,
    impressions: Annotated[float | None, typer.Option(help="plan: slots per user-day.")] = None,
    clustering: Annotated[
        float | None, typer.Option(help="plan: correlation of two clicks of one user-day.")
    ] = None,
    runs: Annotated[int, typer.Option(help="plan: rehearsals per line.")] = 400,
    picture: Annotated[Path | None, typer.Option(help="plan: also draw it here (.svg, .png).")] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="For machines: one JSON value per line.")
    ] = False,
) -> int:
    """Canary of the challenger: start, watch (guard), status, plan, advance, stop."""
    say = _say_json if json_output else _say
    params = load("rollout", RolloutParams)
    if action == "plan":
        given = {"user_days_per_day": user_days_per_day, "ctr": ctr}
        given |= {"impressions": impressions, "clustering": clustering}
        return plan.run(given, params, runs, picture, say)
    redis = connect()
    if action == "start":
        say(*_told(state := begin(redis, params, aliases.act_of(why))))
        confirm(redis, state, say)
    elif action == "status":
        found = control.read(redis)
        say(*(_told(found) if found else ("nothing was ever promoted; `endcap promote` does it", None)))
        for look in control.read_looks(redis, count=1) if found and found.challenger else []:
            say(f"last look: {look['verdict']}, {look['reason']}", look)
    elif action == "stop":
        return stop(redis, aliases.act_of(why), say)
    elif action == "advance":
        state, trouble = further(redis, params, aliases.act_of(why), to)
        say(*_told(state))
        _warn(trouble, say)
        confirm(redis, state, say)
    else:
        guard = Guard(redis, params, load("feedback", FeedbackParams), aliases.follow)
        return watch(guard, redis, poll, until_decided, say)
    return 0


def start(redis: Redis, params: RolloutParams, act: Act, challenger: Release | None) -> RolloutState:
    """Put `challenger` on trial at the first step. The experiment is named after bundle and version."""
    if challenger is None:
        raise RolloutError(
            "challenger: none is registered; `endcap promote` registers one that passes the gate"
        )
    state = control.present(redis)
    experiment = f"{challenger.digest[:12]}-{state.version}"
    return control.start_canary(redis, state, challenger, params.steps[0].percent, experiment, act)


def stop(redis: Redis, act: Act, say: Callable[[str, Any], None]) -> int:
    """End the canary; 1 where the champion is damaged on disk.

    The workers hold the champion in memory, so a damaged one is no reason to go on with the canary. Repeated,
    it says that none is on trial. Raises ReleaseError where a worker does not follow.
    """
    state, unsound = control.present(redis), None
    if state.challenger is None:
        say("no canary is on trial", None)
    else:
        try:
            assurance.require_sound(state.champion)
        except EndcapError as error:
            unsound = error
        for _ in range(TRIES):
            try:
                state = control.rollback(redis, state, act)
            except RolloutConflict:  # the guard moved it on, or another command has stopped it
                state = control.present(redis)
            if state.challenger is None:
                break
        else:
            raise RolloutConflict("challenger: somebody changes the canary all the time; stop it once more")
    say(*_told(state))
    assurance.conclude(redis, state, lambda line: say(line, None))
    if unsound:
        say(f"a worker that starts now cannot load the champion: {unsound}", {"trouble": str(unsound)})
    return int(unsound is not None)


def begin(redis: Redis, params: RolloutParams, act: Act) -> RolloutState:
    """Put the waiting challenger on trial, once. Raises ReleaseError where it is not sound."""
    challenger = aliases.waiting_challenger()
    if challenger:
        assurance.assure(challenger)
    try:
        return start(redis, params, act, challenger)
    except RolloutError:
        state = control.present(redis)
        if challenger and state.challenger == challenger:
            return state  # started by a command before this one
        raise


def further(redis: Redis, params: RolloutParams, act: Act, to: int | None) -> tuple[RolloutState, str | None]:
    """The canary one step further, and what could not follow; with `to` once, however often it is asked.

    Raises ReleaseError where the challenger is not sound, RolloutError where `to` % is not the next step.
    """
    state = control.present(redis)
    if state.challenger:
        assurance.assure(state.challenger)
        ahead = [step.percent for step in params.steps if step.percent > state.percent]
        if to is not None and to == state.percent:
            return state, None
        if to is not None and to not in ahead[:1]:
            allowed = ", ".join(map(str, [state.percent, *ahead[:1]]))
            raise RolloutError(f"--to: {to} is not the next step; allowed: {allowed}")
    return advanced(redis, state, act, params, aliases.follow)


def confirm(redis: Redis, state: RolloutState, say: Callable[[str, Any], None]) -> None:
    """Wait for the workers. Raises ReleaseError where one does not serve `state`."""
    say(assurance.confirm(redis, state, load("release", assurance.ReleaseParams)), None)


def watch(
    guard: Guard,
    redis: Redis,
    poll_s: float,
    until_decided: bool,
    say: Callable[[str, Any], None],
    clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Look again and again, one line per look that says something new.

    With `until_decided` it ends with the canary: 0 promoted, 1 rolled back, stopped or none on trial.
    """
    said, challenger = "", None
    while True:
        before = control.read(redis)
        challenger = before.challenger if before and before.challenger else challenger
        look = guard.look(clock())
        if look is not None:
            line = look.decision.line()
            if line != said:
                say(line, look.decision.numbers() | {"reason": look.decision.reason})
                said = line
            if before is None or look.state.version != before.version:
                say(*_told(look.state))
            _warn(look.trouble, say)
        elif until_decided:
            state = control.read(redis)
            promoted = state is not None and challenger is not None and state.champion == challenger
            if challenger is None:
                say("no canary is on trial; `endcap rollout start` starts one", None)
            return 0 if promoted else 1
        sleep(poll_s)


def _warn(trouble: str | None, say: Callable[[str, Any], None]) -> None:
    if trouble:
        say(f"what serves has changed, but: {trouble}", {"trouble": trouble})


def _told(state: RolloutState) -> tuple[str, dict[str, Any]]:
    """The state in plain words, and as JSON."""
    line = f"champion {state.champion.digest[:12]} serves"
    if state.challenger:
        line += f" {100 - state.percent} %, challenger {state.challenger.digest[:12]} {state.percent} %"
    else:
        line += " everybody"
    return f"{line} outside the holdout (version {state.version})", asdict(state)


def _say(line: str, _: Any) -> None:
    print(line, flush=True)


def _say_json(line: str, value: Any) -> None:
    print(orjson.dumps(value if value is not None else {"message": line}).decode(), flush=True)
