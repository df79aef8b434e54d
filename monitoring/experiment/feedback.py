"""`endcap feedback`: what became of what was shown, joined from the live streams and written down.

data/feedback/slots.parquet    one row per slot served, with its click, cart, purchase and revenue
data/feedback/metrics.parquet  CTR, carts, conversion and revenue per visitor, by arm, surface and day
data/feedback/metrics.svg      the same rates by arm and surface
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import pyarrow as pa
import typer

from feature_repo.events import TIMESTAMP
from feature_repo.files import chunks, write_parquet
from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.picture import Figure
from feature_repo.places import FEEDBACK, at
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.tail import Exposure, Tail
from monitoring.experiment.visitors import SlotCounts
from serving.release.router import ARMS

SLOTS = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("exposed_ts", TIMESTAMP, nullable=False),
        pa.field("day", pa.date32(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("unit", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("variants", pa.map_(pa.string(), pa.string()), nullable=False),  # flag -> variant
        pa.field("slot", pa.int32(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("propensity", pa.float64(), nullable=False),  # the chance that the slot holds this item
        pa.field("clicked_ts", TIMESTAMP),
        pa.field("carted_ts", TIMESTAMP),
        pa.field("purchased_ts", TIMESTAMP),
        pa.field("revenue", pa.float64(), nullable=False),
    ]
)
ROWS_PER_BATCH = 100_000
RATES = {
    "ctr": "clicks per served slot",
    "add_to_cart_rate": "slots carted per visitor",
    "conversion": "buying visitors",
    "revenue_per_visitor": "revenue per visitor",
}


def main(json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> int:
    """Join exposures to clicks, carts and purchases; write rows, rates and a picture to data/feedback."""
    feedback = Feedback(load("feedback", FeedbackParams), journal=True)
    Tail(connect()).feed(feedback)
    folder = at(FEEDBACK)
    rows = write_slots(feedback.exposures(), folder / "slots.parquet")
    metrics = metric_rows(feedback.tallies())
    write_parquet(folder / "metrics.parquet", METRICS, [pa.Table.from_pylist(metrics, METRICS)])
    totals = by_arm_and_surface(feedback.tallies())
    draw(totals).savefig(folder / "metrics.svg")
    if json_output:
        print(orjson.dumps([_named(key, tally) for key, tally in totals.items()]).decode())
        return 0
    print(
        f"{rows:,} slots joined, in {FEEDBACK}/slots.parquet; rates beside it in metrics.parquet, metrics.svg"
    )
    for (arm, surface), tally in totals.items():
        told = ", ".join(f"{name.replace('_', ' ')} {_shown(name, v)}" for name, v in tally.rates().items())
        print(f"{arm:<11} {surface:<26} {tally.visitors:>8,} visitors  {told}")
    return 0


def write_slots(exposures: Iterable[Exposure], path: Path) -> int:
    """One row of SLOTS per slot served, in order of arrival; returns how many. All of the file or nothing."""
    batches = chunks(_slots(exposures), ROWS_PER_BATCH)
    return write_parquet(path, SLOTS, (pa.Table.from_pylist(batch, SLOTS) for batch in batches))


def metric_rows(tallies: Mapping[tuple[str, str, int], SlotCounts]) -> list[dict[str, Any]]:
    """One row per arm, surface and day: the counts of SlotCounts and its rates, in that order."""
    return [
        {"day": _date(day), **_named((arm, surface), tally)}
        for (arm, surface, day), tally in sorted(tallies.items())
    ]


def by_arm_and_surface(
    tallies: Mapping[tuple[str, str, int], SlotCounts],
) -> dict[tuple[str, str], SlotCounts]:
    """Days added up; a visitor of two days counts twice, as in the experiment's user-days."""
    totals: dict[tuple[str, str], SlotCounts] = defaultdict(SlotCounts)
    for (arm, surface, _), tally in sorted(tallies.items()):
        totals[arm, surface] += tally
    return dict(totals)


def draw(totals: Mapping[tuple[str, str], SlotCounts]) -> Figure:
    """One panel per rate, surfaces down, arms side by side."""
    figure = Figure(figsize=(14, 1.8 + 0.5 * len(totals)), layout="constrained")
    surfaces = sorted({surface for _, surface in totals})
    for panel, (rate, title) in zip(figure.subplots(1, len(RATES), sharey=True), RATES.items(), strict=True):
        for i, (arm, colour) in enumerate(zip(ARMS, ("#8d99ae", "#3a7d44", "#d08c2e"), strict=True)):
            values = [totals.get((arm, surface), SlotCounts()).rates()[rate] or 0.0 for surface in surfaces]
            panel.barh(
                [y + 0.27 * (i - 1) for y in range(len(surfaces))], values, 0.25, color=colour, label=arm
            )
        panel.set_yticks(range(len(surfaces)), surfaces)
        panel.set_title(title)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=len(ARMS))
    return figure


def _slots(exposures: Iterable[Exposure]) -> Iterator[dict[str, Any]]:
    for exposure in exposures:
        shown = {name: value for name, value in vars(exposure).items() if name in SLOTS.names}
        shown |= {"exposed_ts": exposure.ts, "day": _date(exposure.day)}
        shown["variants"] = list(exposure.variants.items())
        last = len(exposure.items) - 1
        for slot, item in enumerate(exposure.items):
            found = exposure.outcomes.get(item)
            yield shown | {
                "slot": slot,
                "item_id": item,
                "propensity": exposure.propensity if slot == last else 1.0,
                "clicked_ts": found and found.clicked_us,
                "carted_ts": found and found.carted_us,
                "purchased_ts": found and found.purchased_us,
                "revenue": found.revenue if found else 0.0,
            }


def _date(day: int) -> date:
    """From days since 1970-01-01."""
    return date(1970, 1, 1) + timedelta(days=day)


def _named(key: tuple[str, str], tally: SlotCounts) -> dict[str, Any]:
    return {"arm": key[0], "surface": key[1], **vars(tally), **tally.rates()}


def _shown(rate: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if rate == "revenue_per_visitor" else f"{value:.2%}"


METRICS = pa.schema(
    [("day", pa.date32()), ("arm", pa.string()), ("surface", pa.string())]
    + [(name, pa.float64() if name == "revenue" else pa.int64()) for name in vars(SlotCounts())]
    + [(name, pa.float64()) for name in RATES]
)
