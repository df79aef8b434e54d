"""The report for the eye: days and causes in one picture, and every unseen product in one page."""

from collections.abc import Mapping
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any

from feature_repo.clock import DAY_US, instant
from feature_repo.picture import Figure
from pipelines.unseen.causes import CAUSES, COULD_BE_SOLD

OURS, OTHER = "#1b6ca8", "#b8c4cc"
HALF_A_DAY = timedelta(hours=12)
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:1.2rem auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #ddd}
td.n{text-align:right}img{max-width:100%}"""


def write_picture(report: Mapping[str, Any], path: Path) -> None:
    """Share of the long tail, Gini and coverage by day; unseen products by cause."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    days = report["days"]
    at = [instant(day["day"] * DAY_US) for day in days]
    for name, told in (("tail_share", "long tail's share"), ("gini", "Gini"), ("coverage", "coverage")):
        values = [float("nan") if day[name] is None else day[name] for day in days]
        left.plot(at, values, "o-", markersize=3, label=told)
    left.set(ylim=(0, 1), title="Impressions by day, UTC")
    if at:  # of one day alone the axis would be years long
        left.set(xlim=(at[0] - HALF_A_DAY, at[-1] + HALF_A_DAY))
        left.set_xticks(at[:: len(at) // 8 + 1], [f"{day:%Y-%m-%d}" for day in at[:: len(at) // 8 + 1]])
    left.tick_params(axis="x", rotation=30)
    left.legend(frameon=False)
    names = [name for name in CAUSES[::-1] if report["causes"].get(name)]
    colors = [OURS if name in COULD_BE_SOLD else OTHER for name in names]
    bars = right.barh(names, [report["causes"][name] for name in names], color=colors)
    right.bar_label(bars, padding=3)
    right.set_title(f"No impression for {report['hours']:g} h, gray: not to be sold")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def write_page(report: Mapping[str, Any], path: Path, picture: str) -> None:
    """One file of HTML without any script; every text of the shop is escaped."""
    rows = "".join(
        f"<tr><td>{escape(one['item_id'])}<td>{escape(one['title'])}<td>{escape(one['cause'])}"
        f"<td>{escape(one['told'])}<td>{escape((one['last_seen'] or 'never')[:16])}"
        for one in report["items"]
    )
    causes = "".join(f"<tr><td>{name}<td class=n>{many:,}" for name, many in report["causes"].items())
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Unseen products</title><style>{_STYLE}</style><h1>Unseen products</h1>"
        f"<p>{report['unseen']:,} of {report['products']:,} products had no impression in the "
        f"{report['hours']:g} hours before {escape(report['now'][:16])} UTC; "
        f"{report['could_be_sold']:,} of them could be sold. "
        f"Causes are those of {escape(report['source'])}.</p>"
        f"<table>{causes}</table><p><img src='{escape(picture)}' alt='Impressions by day and causes'></p>"
        f"<table><tr><th>product<th>title<th>cause<th><th>last seen</tr>{rows}</table></html>"
    )
    path.write_text(page)
