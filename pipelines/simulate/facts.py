"""What the simulated shop looks like: the numbers that a simulation must get right, and a picture of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.clock import DAY_US, HOUR_US
from pipelines.simulate.arrivals import Sessions
from pipelines.simulate.journeys import KINDS, SURFACES
from pipelines.simulate.world import World

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = dict[str, np.ndarray]  # Diary.finish()


def _of(log: Log, kind: str) -> np.ndarray:
    """(rows,) whether each row of the log is of this kind."""
    return log["kind"] == KINDS.index(kind)


def first_visits(sessions: Sessions) -> np.ndarray:
    """(S,) whether the shopper of each session was never seen before it."""
    _, first = np.unique(sessions.shopper, return_index=True)
    return np.isin(np.arange(len(sessions)), first)


def facts(world: World, sessions: Sessions, log: Log) -> dict[str, str]:
    """The statistics of a run, ready to print."""
    counts = {kind: int(_of(log, kind).sum()) for kind in KINDS}
    visits, views = len(sessions), counts["product_viewed"]
    buyers = len(np.unique(log["session"][_of(log, "purchase_completed")]))
    return {
        "SKUs": f"{len(world.shop.item_ids):,}",
        "sessions": f"{visits:,}",
        "events": f"{sum(counts.values()) - counts['impression']:,}",
        "impressions": f"{counts['impression']:,}",
        "products viewed": f"{views:,} ({views / visits:.2f} per session)",
        "click-through rate": f"{counts['click'] / max(counts['impression'], 1):.2%}",
        "carts per view": f"{counts['add_to_cart'] / max(views, 1):.2%}",
        "sessions with an order": f"{buyers / visits:.2%}",
        "sessions by unseen shoppers": f"{first_visits(sessions).mean():.1%}",
    }


def draw(world: World, sessions: Sessions, log: Log, path: Path) -> None:
    """A picture of four panels: popularity, traffic, position bias, new and known shoppers."""
    from feature_repo.picture import Figure  # a shop is shown before matplotlib is installed

    figure = Figure(figsize=(12, 7.5), layout="constrained")
    panels = figure.subplots(2, 2)
    _popularity(panels[0, 0], log, len(world.shop.item_ids))
    _traffic(panels[0, 1], sessions)
    _position_bias(panels[1, 0], log)
    _newcomers(panels[1, 1], world, sessions)
    figure.suptitle("The simulated shop")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _popularity(panel: Axes, log: Log, items: int) -> None:
    for kind, label in (("impression", "impressions"), ("product_viewed", "views"), ("add_to_cart", "carts")):
        counts = np.sort(np.bincount(log["item"][_of(log, kind)], minlength=items))[::-1]
        panel.loglog(np.arange(1, items + 1), np.where(counts > 0, counts, np.nan), label=label)
    panel.set(title="Popularity of items", xlabel="rank of the item", ylabel="events in the period")
    panel.legend()


def _traffic(panel: Axes, sessions: Sessions) -> None:
    hours = np.bincount(sessions.start_us // HOUR_US)
    panel.plot(np.arange(len(hours)) / 24, hours, linewidth=0.6)
    panel.set(title="Sessions per hour", xlabel="day of the period (0 is a Monday)", ylabel="sessions")
    panel.set_ylim(0)


def _position_bias(panel: Axes, log: Log) -> None:
    for surface in ("category_sort", "search", "homepage_hero", "pdp_fbt"):
        here = log["surface"] == SURFACES.index(surface)
        shown, clicked = (
            np.bincount(log["position"][here & _of(log, k)], minlength=2)[1:] for k in ("impression", "click")
        )
        rate = clicked / np.maximum(shown[: len(clicked)], 1)
        panel.plot(np.arange(1, len(rate) + 1), 100 * rate, marker="o", markersize=3, label=surface)
    panel.set(title="Clicks by position", xlabel="position in the list", ylabel="CTR, %", ylim=(0, None))
    panel.legend()


def _newcomers(panel: Axes, world: World, sessions: Sessions) -> None:
    day = sessions.start_us // DAY_US
    known = sessions.shopper < len(world.shoppers.user_ids)
    new = first_visits(sessions)
    groups = {"known, back again": known & ~new, "known, first visit": known & new, "anonymous": ~known}
    counts = [np.bincount(day[rows], minlength=int(day.max()) + 1) for rows in groups.values()]
    panel.stackplot(np.arange(len(counts[0])), counts, labels=list(groups))
    panel.set(title="Who comes", xlabel="day of the period", ylabel="sessions per day")
    panel.legend(loc="lower right")
