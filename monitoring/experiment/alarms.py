"""What makes the clicks of a canary unfit to decide: the guard tells and holds (policy: docs/rollout.md)."""

from dataclasses import dataclass

from monitoring.experiment.sequential import ArmStatistics
from monitoring.experiment.visitors import Crowd


@dataclass(frozen=True)
class Alarms:
    """`rollout.alarms`"""

    max_ctr: float
    suspect_share: float
    min_clicks: int
    min_visiting: float
    min_shoppers: int


@dataclass(frozen=True)
class Arm:
    """An arm's clicks, and who stands behind them."""

    name: str
    clicks: ArmStatistics
    crowd: Crowd


def alarm(arms: tuple[Arm, ...], unproven: float, limit: float, alarms: Alarms) -> str:
    """The first reason in words; empty where there is none.

    `unproven` is the evidence for a sample ratio mismatch that shoppers with own events do not share.
    """
    for arm in arms:
        if arm.crowd.refused:
            return (
                f"{arm.crowd.refused:,} lists of the {arm.name} are of shoppers beyond "
                "feedback.belief.most_shoppers"
            )
        clicks = int(arm.clicks.clicks) + arm.crowd.suspect_clicks
        if clicks < alarms.min_clicks:
            continue
        if arm.clicks.ctr > alarms.max_ctr:
            return (
                f"the {arm.name}'s CTR of {arm.clicks.ctr:.1%} is not people's (limit {alarms.max_ctr:.0%})"
            )
        if arm.crowd.suspect_clicks > alarms.suspect_share * clicks:
            return (
                f"{arm.crowd.suspect_clicks:,} of the {arm.name}'s {clicks:,} clicks are of "
                f"{arm.crowd.suspects:,} shoppers who click more than people do "
                f"(limit {alarms.suspect_share:.0%})"
            )
    fresh, visiting = (sum(getattr(arm.crowd, name) for arm in arms) for name in ("fresh", "visiting"))
    if fresh >= alarms.min_shoppers and visiting < alarms.min_visiting * fresh:
        return (
            f"an event came of only {visiting:,} of {fresh:,} shoppers (limit {alarms.min_visiting:.0%}): "
            "made-up ids, or a shop that sends no events"
        )
    if unproven > limit:
        return (
            f"shoppers do not split as asked (evidence {unproven:.0f} : 1), those with events of their own do"
        )
    return ""
