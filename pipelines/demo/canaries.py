"""Two canaries with live shoppers: a release that deserves the traffic, and one that does not."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.places import CHALLENGERS, at
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import Move, RolloutParams, Step
from monitoring.experiment.watch import Guard
from pipelines.local.story import StepError, say
from pipelines.release import aliases, rollout
from pipelines.release.assurance import require_sound
from pipelines.simulate.observed import Observed
from serving.release import bundle
from serving.release import state as control

BURYING, TOO_MANY = 5.0, 10  # the least wanted of ten times the candidates fill the shelf
Visitors = Callable[[int], Observed]  # that many shoppers come, and leave


@dataclass(frozen=True)
class DemoParams:
    """`demo:`, how much happens in `endcap demo`; params.yaml says what each key is for."""

    seed: int
    shoppers: int
    shoppers_per_look: int
    shoppers_at_most: int
    tightest_error: float
    steps: tuple[Step, ...]


def misset(candidate: Path) -> str:
    """A release of the candidate's files with settings that bury whatever sells; its path below root().

    It still carries the candidate's evaluation: the case of a setting that was changed after staging passed,
    which no gate can see and only live shoppers can.
    """
    manifest = aliases.read_manifest(candidate)
    wrong = {
        "diversify": manifest["diversify"] | {"trade_off": BURYING},
        "retrieve": manifest["retrieve"] | {"k": TOO_MANY * manifest["retrieve"]["k"]},
    }
    bad = bundle.write(candidate, manifest | wrong, at(CHALLENGERS))
    return str(CHALLENGERS / bad.name)


def canary(visitors: Visitors, demo: DemoParams, why: str) -> bool:
    """Put the waiting challenger on trial; shoppers come until a guard has decided. True if promoted.

    The guard of `endcap up` watches too, by the ladder of `rollout`; whichever sees enough first decides.
    Raises StepError when `shoppers_at_most` came and the guard still holds; the canary is stopped then.
    """
    redis = connect()
    params = dataclasses.replace(
        load("rollout", RolloutParams), steps=demo.steps, tightest_error=demo.tightest_error
    )
    guard = Guard(redis, params, load("feedback", FeedbackParams), aliases.follow, require_sound)
    challenger = aliases.waiting_challenger()
    state, told = rollout.start(redis, params, aliases.act_of(why), challenger), ""
    for _ in range(0, demo.shoppers_at_most, demo.shoppers_per_look):
        visitors(demo.shoppers_per_look)
        look = guard.look(time.time_ns() // 1000)
        if look is None:  # the other guard ended it
            return control.present(redis).champion == challenger
        decision = look.decision
        line = f"{decision.percent:>3} %  {decision.user_days:>5,} user-days  {decision.comparison()}"
        if line != told:
            say(line)
            told = line
        if decision.move is not Move.HOLD:
            say(f"       {decision.move.value}: {decision.reason}")
        if look.state.challenger is None:
            return look.state.champion == challenger
    control.rollback(redis, control.read(redis) or state, aliases.act_of("the demo's shoppers ran out"))
    raise StepError(
        f"the guard had not decided after {demo.shoppers_at_most} shoppers; raise demo.shoppers_at_most"
    )
