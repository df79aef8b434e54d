"""A comparison as a table and as a picture: one line per feature, and the culprit of every mismatch."""

from typing import Any

from feature_repo.picture import Figure
from feature_repo.terminal import console, table

EQUAL, UNEQUAL = "#3a7d44", "#c0392b"


def show(report: dict[str, Any]) -> None:
    """Print what `Parity.report` tells."""
    out, summary = console(), table("Replay over HTTP against offline", ("what", ">online", ">offline"))
    told = report["answered_by_champion"]
    summary.add_row("query points asked", f"{report['asked']:,}", "")
    summary.add_row("asked again, the machine was busy", f"{report['asked_again']:,}", "")
    summary.add_row("answered by the champion (the rest is the holdout)", f"{told:,}", "")
    scores = (report[f"ndcg_at_12_{side}"] or 0 for side in ("online", "offline"))
    summary.add_row("NDCG@12", *(f"{score:.4f}" for score in scores))
    summary.add_row("distinct items shown", f"{report['items_shown']:,}", "")
    for name, equal, total in (
        ("lists equal", "equal_lists", "lists"),
        ("slots equal", "equal_slots", "slots"),
        ("candidates in both", "shared_candidates", "candidates"),
    ):
        summary.add_row(name, f"{report[equal]:,}", f"of {report[total]:,}")
    unequal = sum(report["unequal_values"].values())
    summary.add_row("values equal", f"{report['values'] - unequal:,}", f"of {report['values']:,}")
    out.print(summary)
    names = ("feature", ">compared", ">unequal", ">largest difference")
    features = table("The 28 values of every candidate", names)
    for column, found in report["features"].items():
        features.add_row(
            column,
            f"{found['compared']:,}",
            f"{found['unequal']:,}",
            f"{found['largest_difference']:.3g}" if found["unequal"] else "-",
            style="red" if found["unequal"] else None,
        )
    out.print(features)
    for column, found in report["features"].items():
        for example in found["mismatches"]:
            out.print(
                f"{column} of {example['item_id']}, query {example['query']}, visit {example['session_id']}: "
                f"online {example['online']}, offline {example['offline']}; made of "
                f"{', '.join(found['made_of']) or 'the request'}",
                *(f"    {line}" for line in example["culprits"]),
                sep="\n",
                markup=False,
            )


def draw(report: dict[str, Any]) -> Figure:
    """Share of equal values, one bar per feature."""
    names = [*report["features"]][::-1]
    found = [report["features"][name] for name in names]
    shares = [1 - f["unequal"] / f["compared"] if f["compared"] else 0.0 for f in found]
    figure = Figure(figsize=(9, 0.27 * len(names) + 1.4), layout="constrained")
    panel = figure.subplots()
    panel.barh(names, shares, color=[EQUAL if share == 1 else UNEQUAL for share in shares])
    for at, (share, one) in enumerate(zip(shares, found, strict=True)):
        text = "all equal" if share == 1 else f"{one['unequal']:,} differ"
        panel.text(0.01, at, text, va="center", color="white", fontsize=8)
    panel.set_xlim(0, 1)
    panel.set_xlabel("share of values equal online and offline")
    panel.set_title(
        f"{report['asked']:,} questions over HTTP: {report['equal_slots']:,} of {report['slots']:,} slots, "
        f"{report['values'] - sum(report['unequal_values'].values()):,} of {report['values']:,} values equal",
        fontsize=10,
    )
    return figure
