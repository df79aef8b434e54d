"""Lists that were shown and what shoppers did with them, as the streams have it."""

from __future__ import annotations

from typing import Any

from feature_repo.clock import DAY_US, SECOND_US
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.visitors import Belief

PARAMS = FeedbackParams(
    click_window_s=1800.0,
    order_window_s=86_400.0,
    lateness_s=120.0,
    most_open=300_000,
    most_waiting=50_000,
    belief=Belief(most_clicks=4, most_ctr=0.5, most_shoppers=500_000),
)
NOON = 20_000 * DAY_US + DAY_US // 2
MINUTE = 60 * SECOND_US


def shown(request: str, at: int = NOON, unit: str | None = "u1", **other: Any) -> dict[str, Any]:
    record = {"request_id": request, "ts": at, "unit": unit, "user_id": unit, "session_id": f"s-{unit}"}
    record |= {"arm": "champion", "bundle": "b1", "surface": "homepage_hero", "items": ["a", "b", "c"]}
    return record | other


def event(kind: str, item: str, at: int, *, name: str = "", unit: str = "u1", **other: Any) -> dict[str, Any]:
    record = {"event_id": name or f"{kind}-{item}-{at}-{unit}", "type": kind, "item_id": item, "event_ts": at}
    return record | {"user_id": unit, "session_id": f"s-{unit}"} | other


def click(request: str, item: str, at: int = NOON + MINUTE, **other: Any) -> dict[str, Any]:
    return event("click", item, at, request_id=request, **other)


def joined(exposures: list[dict[str, Any]], events: list[dict[str, Any]]) -> Feedback:
    feedback = Feedback(PARAMS)
    feedback.update(exposures, events)
    return feedback


def counts(feedback: Feedback, arm: str = "champion") -> tuple[int, int]:
    statistics = feedback.statistics(arm)
    return statistics.clicks, statistics.impressions
