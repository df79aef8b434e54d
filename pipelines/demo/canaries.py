"""Two canaries with live shoppers: a release that deserves the traffic, and one that does not."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from redis import Redis

from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.places import CHALLENGERS, at
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import Move, RolloutParams, Step
from monitoring.experiment.watch import Guard
from monitoring.shadow.pairing import measure
from monitoring.shadow.portrait import line
from pipelines.local.story import StepError, say
from pipelines.release import aliases, rollout
from pipelines.release.assurance import require_sound
from pipelines.simulate.observed import Observed
from serving.beside import trial
from serving.beside.trial import ShadowParams
from serving.release import bundle
from serving.release import state as control
from serving.release.state import Release

READY_S = 20.0  # for the workers to load a release
BURYING, TOO_MANY = 5.0, 10  # the least wanted of ten times the candidates fill the shelf
Visitors = Callable[[int], Observed]  # that many shoppers come, and leave


@dataclass(frozen=True)
class DemoParams:
    """`demo:`, how much happens in `endcap demo`; params.yaml says what each key is for."""

    seed: int
    shadowed: int
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


def shadow(redis: Redis, challenger: Release, visitors: Visitors, shoppers: int) -> None:
    """What `challenger` would have shown to as many shoppers, who see none of it; one line."""
    params, act = replace(load("shadow", ShadowParams), share=1.0), aliases.act_of("demo: a look before")
    trial.begin(redis, challenger, params, act)
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and not measure(redis, challenger.digest).pairs:
        visitors(1)  # until the workers have loaded it
    visitors(shoppers)
    trial.end(redis, act)
    say(f"in the shadow {line(measure(redis, challenger.digest))}")


def canary(visitors: Visitors, demo: DemoParams, why: str) -> bool:
    """Put the waiting challenger on trial; shoppers come until a guard has decided. True if promoted.

    The guard of `endcap up` watches too, by the ladder of `rollout`; whichever sees enough first decides.
    Raises StepError when `shoppers_at_most` came and the guard still holds; the canary is stopped then.
    """
    redis = connect()
    params = replace(load("rollout", RolloutParams), steps=demo.steps, tightest_error=demo.tightest_error)
    guard = Guard(
        redis, params, load("feedback", FeedbackParams), partial(aliases.follow, redis=redis), require_sound
    )
    challenger = aliases.waiting_challenger()
    if challenger:
        shadow(redis, challenger, visitors, demo.shadowed)
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
