"""The guard at work: look at the canary, decide, change the state. The policy is guard.py.

A change of the state (by the guard or by a person) begins a new step with new statistics: only exposures
made under that version of the state count. Pooling steps of different shares would mix days in different
proportions in the two arms, so that a good Saturday would look like a good challenger (Simpson's paradox).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from redis import Redis

from feature_repo.errors import EndcapError
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.guard import Decision, Move, RolloutParams, Step, decide, is_slow
from monitoring.experiment.tail import Tail
from serving.release import looks
from serving.release import state as control
from serving.release.router import CHALLENGER, CHAMPION
from serving.release.state import Act, Release, RolloutConflict, RolloutError, RolloutState

Hook = Callable[[RolloutState], None]
RECHECK_US = 10_000_000  # a challenger that was found damaged is looked at again after this


@dataclass(frozen=True)
class Look:
    """One look: the decision, and the state as the guard left it."""

    decision: Decision
    state: RolloutState
    trouble: str | None = None  # what did not follow the state: an alias that could not be moved


class Guard:
    """Watches whatever canary `endcap:rollout` holds. `follow` gets a new state after the change.

    `assure` raises EndcapError for a release that no worker could load: its canary goes no further.
    """

    def __init__(
        self,
        redis: Redis,
        params: RolloutParams,
        feedback_params: FeedbackParams,
        follow: Hook,
        assure: Callable[[Release], None] = lambda _: None,
    ) -> None:
        self._redis, self._params, self._feedback_params = redis, params, feedback_params
        self._follow, self._assure = follow, assure
        self._damage, self._checked_us = "", 0
        self._version: int | None = None  # of the step that is being watched
        self._unfollowed = False  # whether a change that may have been ours was not followed yet

    def _begin(self, state: RolloutState) -> None:
        self._last: tuple[int, int, Move, str] | None = None
        self._slow_looks, self._requests = 0, 0
        self._damage = ""
        self._feedback = Feedback(self._feedback_params, version=state.version)
        self._tail = Tail(self._redis, state.begun, events_since=state.since)
        self._version = state.version

    def look(self, now_us: int) -> Look | None:
        """Read what arrived, decide and act, and leave a heartbeat; None while no canary is on trial.

        Errors of Redis and of the log of events are raised as they are; the next look goes on from there.
        """
        state = control.read(self._redis)
        if state is None or state.challenger is None:
            if state is not None and self._unfollowed:
                _followed(self._follow, state)
            self._unfollowed = False
            looks.beat(self._redis, alarm="")
            return None
        if state.version != self._version:
            self._begin(state)
        self._tail.feed(self._feedback, each=lambda: looks.beat(self._redis))
        health, champion_health = (control.read_health(self._redis, arm) for arm in (CHALLENGER, CHAMPION))
        if health.requests != self._requests:  # without new requests the p99 is an old one
            slow = is_slow(health, champion_health, self._params.switches)
            self._slow_looks = self._slow_looks + 1 if slow else 0
            self._requests = health.requests
        decision = decide(
            step_at(state.percent, self._params),
            self._feedback.statistics(CHALLENGER),
            self._feedback.statistics(CHAMPION),
            health,
            champion_health,
            self._slow_looks,
            self._params,
            self._feedback.crowd(CHALLENGER),
            self._feedback.crowd(CHAMPION),
        )
        if decision.move is Move.ADVANCE and (damage := self._damaged(state.challenger, now_us)):
            decision = replace(decision, move=Move.HOLD, reason=f"alarm: {damage}", alarm=damage)
        looks.beat(self._redis, alarm=decision.alarm)
        self._record(decision, state)
        try:
            return self._act(decision, state, Act("guard", decision.reason, now_us, decision.numbers()))
        except RolloutConflict:
            # Somebody else decided first, and follows: the next look sees what.
            self._unfollowed = False
            return Look(decision, state)

    def _damaged(self, challenger: Release, now_us: int) -> str:
        """What keeps a worker that starts now from loading it: those that run hold it in memory."""
        if not self._damage or abs(now_us - self._checked_us) >= RECHECK_US:
            self._checked_us = now_us
            try:
                self._assure(challenger)
                self._damage = ""
            except EndcapError as error:
                self._damage = str(error)
        return self._damage

    def _record(self, decision: Decision, state: RolloutState) -> None:
        """Looks that saw nothing new are not worth an entry."""
        seen = (decision.user_days, decision.champion_user_days, decision.move, decision.alarm)
        if seen != self._last:
            look = {"experiment": state.experiment, "version": state.version, "reason": decision.reason}
            looks.record_look(self._redis, look | decision.numbers())
            self._last = seen

    def _act(self, decision: Decision, state: RolloutState, act: Act) -> Look:
        if decision.move is Move.HOLD:
            return Look(decision, state)
        self._unfollowed = True  # an answer of Redis may be lost after it changed the state
        if decision.move is Move.ROLLBACK:
            state = control.rollback(self._redis, state, act)
            trouble = _followed(self._follow, state)
        else:
            state, trouble = advanced(self._redis, state, act, self._params, self._follow)
        self._unfollowed = False
        return Look(decision, state, trouble)


def advanced(
    redis: Redis, state: RolloutState, act: Act, params: RolloutParams, follow: Hook
) -> tuple[RolloutState, str | None]:
    """The state one step further (after 100 %: promoted), and what could not follow it."""
    further = [step.percent for step in params.steps if step.percent > state.percent]
    if further:
        return control.advance(redis, state, further[0], act), None
    state = control.promote_champion(redis, state, act)
    return state, _followed(follow, state)


def step_at(percent: int, params: RolloutParams) -> Step:
    """The step of this share. Raises RolloutError if params.yaml has none."""
    for step in params.steps:
        if step.percent == percent:
            return step
    allowed = ", ".join(str(step.percent) for step in params.steps)
    raise RolloutError(f"percent: no step of {percent} % in params.yaml; rollout.steps are {allowed}")


def _followed(hook: Hook, state: RolloutState) -> str | None:
    """The shoppers come first: what serves has changed already, and an alias that lags must not undo that."""
    try:
        hook(state)
    except EndcapError as error:
        return str(error)
    return None
