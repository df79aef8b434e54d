"""`endcap rollout`: put the challenger on trial, watch it, reckon its cost, stop it; what became of all."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer
from redis import Redis, RedisError

from feature_repo.errors import EndcapError, UnavailableError
from feature_repo.online.connection import ONCE, client, connect
from feature_repo.params import load
from monitoring.experiment import turns
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.watch import Guard, Look, advanced
from monitoring.shadow.pairing import cleared
from pipelines.release import aliases, assurance
from serving.beside import trial
from serving.beside.trial import ShadowParams
from serving.release import looks
from serving.release import state as control
from serving.release.looks import Beat
from serving.release.state import Act, Release, RolloutConflict, RolloutError, RolloutState

TRIES = 5  # of a stop that others are in the way of
Action = Literal["start", "watch", "status", "plan", "advance", "stop", "history"]
Say = Callable[[str, Any], None]
ANSWER_S = 5.0  # of Redis to one command of the guard
WAIT_S = (0.5, 5.0)  # the guard's first and longest pause while Redis is away
BY_HAND = "by hand"
REPEAT_S = 60.0  # a look that says HOLD again is told so often


def main(
    action: Annotated[
        Action, typer.Argument(help="start, watch, status, plan, advance (by hand), stop or history.")
    ],
    why: Annotated[str, typer.Option(help="start, advance, stop: the reason, for the audit.")] = BY_HAND,
    force: Annotated[bool, typer.Option("--force", help="start: whatever the shadow saw.")] = False,
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
    last: Annotated[int, typer.Option(help="history: so many releases.")] = 20,
    json_output: Annotated[bool, typer.Option("--json", help="For machines: a JSON value per line.")] = False,
) -> int:
    """Canary of the challenger: start, watch (guard), status, plan, advance, stop, history."""
    say = _say_json if json_output else _say
    params = load("rollout", RolloutParams)
    if action == "plan":
        from monitoring.experiment import plan  # draws: 60 MB that a guard does not need

        given = {"user_days_per_day": user_days_per_day, "ctr": ctr}
        given |= {"impressions": impressions, "clustering": clustering}
        return plan.run(given, params, runs, picture, say)
    if action == "watch":  # Redis may be away: the guard waits
        guarding = client(socket_timeout=ANSWER_S, retry=ONCE)
        guard = Guard(
            guarding,
            params,
            load("feedback", FeedbackParams),
            partial(aliases.follow, redis=guarding),
            assurance.require_sound,
        )
        return watch(guard, guarding, poll, until_decided, say, keep_up=aliases.Straggler(guarding).look)
    redis = connect()
    if action == "start":
        say(*_told(begun := begin(redis, params, allowed(redis, aliases.act_of(why), force))))
        if not (beat := looks.read_beat(redis)) or beat.age_s > begun.guard_timeout_s:
            say(*_guard_told(beat, begun))
        confirm(redis, begun, say)
    elif action == "status":
        found = control.read(redis)
        say(*(_told(found) if found else ("nothing was ever promoted; `endcap promote` does it", None)))
        for look in looks.read_looks(redis, count=1) if found and found.challenger else []:
            say(f"last look: {look['verdict']}, {look['reason']}", look)
        say(*_guard_told(looks.read_beat(redis), found))
    elif action == "history":
        return turns.run(control.read_audit(redis, control.AUDIT_KEPT), aliases.ndcg_of, last, say)
    elif action == "stop":
        return stop(redis, aliases.act_of(why), say)
    else:
        state, trouble = further(redis, params, aliases.act_of(why), to)
        say(*_told(state))
        _warn(trouble, say)
        confirm(redis, state, say)
    return 0


def start(redis: Redis, params: RolloutParams, act: Act, challenger: Release | None) -> RolloutState:
    """Put `challenger` on trial at the first step. The experiment is named after bundle and version."""
    if challenger is None:
        raise RolloutError(
            "challenger: none is registered; `endcap promote` registers one that passes the gate"
        )
    state = control.present(redis)
    experiment = f"{challenger.digest[:12]}-{state.version}"
    percent, timeout_s = params.steps[0].percent, params.guard_timeout_s
    return control.start_canary(redis, state, challenger, percent, experiment, act, timeout_s)


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


def allowed(redis: Redis, act: Act, force: bool) -> Act:
    """The act, with what the shadow saw. Raises RolloutError where that speaks against it, unless forced."""
    challenger = aliases.waiting_challenger()
    if challenger is None or control.present(redis).challenger == challenger:
        return act
    if force and act.why == BY_HAND:
        raise RolloutError('--force: needs a reason for the audit; allowed: --force --why "..."')
    forced = act.why if force else ""
    return replace(act, numbers=cleared(redis, challenger, load("shadow", ShadowParams), forced))


def begin(redis: Redis, params: RolloutParams, act: Act) -> RolloutState:
    """Put the waiting challenger on trial, once. Raises ReleaseError where it is not sound."""
    challenger = aliases.waiting_challenger()
    if challenger:
        assurance.assure(challenger)
    try:
        begun = start(redis, params, act, challenger)
        trial.end(redis, act)  # seen by shoppers from now on
        trial.end(redis, act, trial.INTERLEAVE)  # and two arms are compared that differ in nothing else
        return begun
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
    return advanced(redis, state, act, params, partial(aliases.follow, redis=redis))


def confirm(redis: Redis, state: RolloutState, say: Callable[[str, Any], None]) -> None:
    """Wait for the workers. Raises ReleaseError where one does not serve `state`."""
    say(assurance.confirm(redis, state, load("release", assurance.ReleaseParams)), None)


def watch(
    guard: Guard,
    redis: Redis,
    poll_s: float,
    until_decided: bool,
    say: Say,
    clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    sleep: Callable[[float], None] = time.sleep,
    keep_up: Callable[[RolloutState | None], str] = lambda _: "",
) -> int:
    """Look again and again; a look that moves the canary is told, and every so often one that does not.

    With `until_decided` it tells every look that says something new, and ends with the canary: 0 promoted,
    1 rolled back, stopped or none on trial. A Redis (or log of events) that is away, loads or may not be
    written is waited for: that is no decision.
    """
    teller = Teller(say, every_new=until_decided)
    challenger, failures, since = None, 0, 0.0
    while True:
        try:
            before = control.read(redis)
            if before is None and challenger is not None:
                raise UnavailableError("endcap:rollout: Redis holds no release any more")
            challenger = before.challenger if before and before.challenger else challenger
            look = guard.look(clock())
            after = look.state if look else control.read(redis)
            if told := keep_up(after):
                say(told, {"aliases": told})
        except (RedisError, OSError, UnavailableError) as error:
            if not failures:
                since = time.monotonic()
                say(f"the guard waits and tries again: {error}", {"waiting": str(error)})
            failures += 1
            sleep(min(WAIT_S[0] * 2 ** min(failures - 1, 8), WAIT_S[1]))
            continue
        if failures:
            gone_s = time.monotonic() - since
            say(f"the guard looks again, after {gone_s:.0f} s", {"waited_s": round(gone_s, 1)})
            failures = 0
        if look is not None:
            teller.tell(look, moved=before is None or look.state.version != before.version)
        elif until_decided:
            if challenger is None:
                say("no canary is on trial; `endcap rollout start` starts one", None)
            return 0 if after is not None and challenger is not None and after.champion == challenger else 1
        sleep(poll_s)


class Teller:
    """Tells looks that say something new: all of them, or one that holds again only every REPEAT_S."""

    def __init__(self, say: Say, every_new: bool) -> None:
        self._say, self._every_new = say, every_new
        self._said, self._kind, self._at = "", ("", 0, ""), -math.inf

    def tell(self, look: Look, moved: bool) -> None:
        """`moved`: the look changed the state."""
        decision, line = look.decision, look.decision.line()
        kind = (decision.move.value, decision.percent, decision.alarm.partition(" ")[0])
        due = self._every_new or kind != self._kind or time.monotonic() - self._at > REPEAT_S
        if line != self._said and due:
            self._say(line, decision.numbers() | {"reason": decision.reason})
            self._said, self._kind, self._at = line, kind, time.monotonic()
        if moved:
            self._say(*_told(look.state))
        _warn(look.trouble, self._say)


def _warn(trouble: str | None, say: Say) -> None:
    if trouble:
        say(f"what serves has changed, but: {trouble}", {"trouble": trouble})


def _guard_told(beat: Beat | None, state: RolloutState | None) -> tuple[str, dict[str, Any]]:
    """Whether a guard lives, in plain words, and as JSON."""
    told = {"guard_age_s": beat and round(beat.age_s, 1), "alarm": beat.alarm if beat else ""}
    limit_s = state.guard_timeout_s if state else math.inf
    if beat and beat.age_s <= limit_s:
        alarm = f"; alarm: {beat.alarm}" if beat.alarm else ""
        return f"guard: looked {beat.age_s:.1f} s ago{alarm}", told
    seen = f"the last looked {beat.age_s:,.0f} s ago" if beat else "none ever looked"
    line = f"guard: {seen}; `endcap up guard` starts one"
    if state and state.challenger:
        line += f", without one the canary steps back after {limit_s:.0f} s"
    return line, told


def _told(state: RolloutState) -> tuple[str, dict[str, Any]]:
    """The state in plain words, and as JSON."""
    line = f"champion {state.champion.digest[:12]} serves"
    if state.challenger:
        line += f" {100 - state.percent} %, challenger {state.challenger.digest[:12]} {state.percent} %"
    else:
        line += " everybody"
    return f"{line} outside the holdout (version {state.version})", state.told()


def _say(line: str, _: Any) -> None:
    print(line, flush=True)


def _say_json(line: str, value: Any) -> None:
    print(orjson.dumps(value if value is not None else {"message": line}).decode(), flush=True)
