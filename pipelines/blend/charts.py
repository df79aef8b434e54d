"""Pictures of what was learned: shares of the sources and windows; orders on validation; knobs and prices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_repo.picture import Figure

OURS, OTHER, HITS = "#1b6ca8", "#b8c4cc", "#7a8793"
KNOBS = {"tail_share": OURS, "tail_below": "#d08c2e", "trade_off": HITS}
BOUGHT = {
    "coverage_at_12": "coverage@12",
    "gini": "Gini of exposure, less is more even",
    "distance": "distance within a list",
}


def draw_blend(report: Mapping[str, Any], path: Path) -> None:
    """Each source's quota, share of candidates and of hits, beside the recall under each window."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    sources = report.get("sources") or {name: {"quota": q} for name, q in report["quotas"].items()}
    names = list(sources)[::-1]
    for shift, key, color in ((0.2, "candidates", OTHER), (-0.2, "hits", OURS)):
        values = [sources[name].get(key, 0.0) for name in names]
        left.barh([i + shift for i in range(len(names))], values, 0.38, color=color, label=f"share of {key}")
    left.set_yticks(range(len(names)), [f"{name}, {sources[name]['quota']} places" for name in names])
    left.set_title(f"Sources, {report['shop']}: {report['queries']:,} queries", loc="left")
    left.legend(frameon=False)
    windows = report.get("windows", [])
    labels = [f"{window['days']:g}" for window in windows]
    chosen = [OURS if window["days"] == report["bought_days"] else OTHER for window in windows]
    right.bar(labels, [window["recall"] for window in windows], color=chosen)
    if windows:
        right.axhline(report["recall"]["before"], color=HITS, linestyle=":")
        right.set(xlabel="days without what was bought", ylabel=f"recall@{report['k']}, dotted: as shipped")
    right.set_title("Window" if windows else "not learned: too few queries", loc="left")
    _save(figure, (left, right), path)


def draw_order(report: Mapping[str, Any], path: Path) -> None:
    """NDCG@12 with its interval against coverage: one point per order, the one that serves in colour."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, found in report["models"].items():
        color = OURS if name == report["serves"] else HITS
        x, y = found["coverage_at_12"], found["ndcg_at_12"]
        spread = [[y - found["ndcg_low"]], [found["ndcg_high"] - y]]
        axes.errorbar(x, y, yerr=spread, fmt="o", color=color, capsize=3)
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(9, 4), color=color)
    axes.set(xlabel="coverage@12", ylabel="NDCG@12, 95 % interval", xlim=(0, 1.05))
    axes.set_ylim(bottom=0)
    axes.set_title(f"{report['serves']} serves, {report['shop']}: validation", loc="left")
    _save(figure, (axes,), path)


def draw_variety(report: Mapping[str, Any], path: Path) -> None:
    """NDCG@12 against coverage, Gini and distance: a line per knob of `diversify`, ringed where it serves.

    `report` holds the rows `variety` and, by name, the value at which each knob serves.
    """
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panels = figure.subplots(1, len(BOUGHT), sharey=True)
    for axes, (bought, label) in zip(panels, BOUGHT.items(), strict=True):
        for knob, color in KNOBS.items():
            rows = [row for row in report["variety"] if row["knob"] == knob]
            x, y = [row[bought] for row in rows], [row["ndcg_at_12"] for row in rows]
            axes.plot(x, y, "o-", color=color, label=knob)
            for row, *point in zip(rows, x, y, strict=True):
                near = {"textcoords": "offset points", "xytext": (4, 5), "color": color}
                axes.annotate(f"{row['value']:g}", point, **near)
                if row["value"] == report[knob]:
                    axes.plot(*point, "o", color="none", markeredgecolor=color, markersize=14)
        axes.set_xlabel(label)
    panels[0].set_ylabel("NDCG@12")
    told = "what each knob costs, ringed: as it serves" if report["variety"] else "not asked"
    panels[0].set_title(f"{report['shop']}, validation: {told}", loc="left")
    panels[0].legend(frameon=False)
    _save(figure, tuple(panels), path)


def draw_chances(report: Mapping[str, Any], shop: str, path: Path) -> None:
    """What was told against what came true, by tenths of the shown items; nothing where nothing is told."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    bins = report.get("reliability", [])
    most = max((max(told, true) for told, true, _ in bins), default=1.0)
    axes.plot([0, most], [0, most], color=OTHER)
    axes.plot([told for told, _, _ in bins], [true for _, true, _ in bins], "o-", color=OURS)
    axes.set(xlabel="chance of a click, told by the other half", ylabel="share that was clicked")
    title = f"{report['clicks']:,} clicks" if bins else "too few clicks"
    axes.set_title(f"{shop}, validation: {title}", loc="left")
    _save(figure, (axes,), path)


def _save(figure: Figure, panels: tuple[Any, ...], path: Path) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
