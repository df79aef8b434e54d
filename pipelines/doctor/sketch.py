"""The picture of an export: contacts by day with the suggested cuts, and events by type."""

from datetime import datetime
from pathlib import Path

from feature_repo.picture import Figure
from pipelines.doctor.diagnosis import cuts
from pipelines.doctor.survey import Survey


def draw(seen: Survey, name: str, path: Path) -> None:
    """Writes `path`; its ending (.png, .svg) is the format."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    days = [datetime.fromisoformat(day) for day in seen.days]
    left.bar(days, list(seen.days.values()), color="tab:blue")
    left.set_title(f"{name}: contacts with products by day")
    if seen.first and seen.last:
        for label, moment in cuts(seen.first, seen.last).items():
            when = datetime.fromisoformat(moment.removesuffix("Z"))
            left.axvline(when, color="tab:red", linestyle="--")
            left.annotate(
                label, (when, 1), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right"
            )
    left.tick_params(axis="x", rotation=30)
    kinds = list(seen.types.items())[:10][::-1]
    bars = right.barh([str(kind) for kind, _ in kinds], [rows for _, rows in kinds], color="tab:green")
    right.bar_label(bars, labels=[f"{rows:,}" for _, rows in kinds], padding=3)
    right.set_title("events by type")
    right.set_xscale("log")
    right.margins(x=0.3)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100, metadata={"Software": None} if path.suffix == ".png" else None)
