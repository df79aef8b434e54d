"""The guard at work: look at the canary, decide, change the state. The policy is guard.py.

A change of the state (by the guard or by a person) begins a new step with new statistics: only exposures
since then count. Pooling steps of different shares would mix days in different proportions in the two arms,
so that a good Saturday would look like a good challenger (Simpson's paradox).
"""

from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from feature_repo.errors import EndcapError
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.guard import Decision, Move, RolloutParams, Step, decide, is_slow
from monitoring.experiment.tail import Tail
from serving.release import state as control
from serving.release.router import CHALLENGER, CHAMPION
from serving.release.state import Act, RolloutConflict, RolloutError, RolloutState

Hook = Callable[[RolloutState], None]


@dataclass(frozen=True)
class Look:
    """One look: the decision, and the state as the guard left it."""

    decision: Decision
    state: RolloutState
    trouble: str | None = None  # what did not follow the state: an alias that could not be moved


class Guard:
    """Watches whatever canary `endcap:rollout` holds. `follow` gets a new state after the change."""

    def __init__(
        self, redis: Redis, params: RolloutParams, feedback_params: FeedbackParams, follow: Hook
    ) -> None:
        self._redis, self._params, self._feedback_params = redis, params, feedback_params
        self._follow = follow
        self._version: int | None = None  # of the step that is being watched

    def _begin(self, state: RolloutState) -> None:
        self._version = state.version
        self._last: tuple[int, int, Move] | None = None
        self._slow_looks, self._requests = 0, 0
        self._feedback = Feedback(self._feedback_params)
        begun_ms = int(state.since.partition("-")[0])
        self._tail = Tail(self._redis, f"{begun_ms + self._params.grace_ms}-0")

    def look(self, now_us: int) -> Look | None:
        """Read what arrived, decide and act; None while no canary is on trial."""
        state = control.read(self._redis)
        if state is None or state.challenger is None:
            return None
        if state.version != self._version:
            self._begin(state)
        self._tail.feed(self._feedback)
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
        )
        self._record(decision, state, now_us)
        try:
            return self._act(decision, state, Act("guard", decision.reason, now_us, decision.numbers()))
        except RolloutConflict:
            # Somebody else decided first: the next look sees what.
            return Look(decision, state)

    def _record(self, decision: Decision, state: RolloutState, now_us: int) -> None:
        """Looks that saw nothing new are not worth an entry."""
        seen = (decision.user_days, decision.champion_user_days, decision.move)
        if seen != self._last:
            self._last = seen
            look = {"at_us": now_us, "experiment": state.experiment, "version": state.version}
            control.record_look(self._redis, look | {"reason": decision.reason} | decision.numbers())

    def _act(self, decision: Decision, state: RolloutState, act: Act) -> Look:
        if decision.move is Move.HOLD:
            return Look(decision, state)
        if decision.move is Move.ROLLBACK:
            state = control.rollback(self._redis, state, act)
            return Look(decision, state, _followed(self._follow, state))
        return Look(decision, *advanced(self._redis, state, act, self._params, self._follow))


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
