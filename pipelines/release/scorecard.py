"""data/reports/evaluate.json and its picture: `endcap evaluate` writes it, the gate and people read it."""

from pathlib import Path
from typing import Any

from feature_repo.files import read_json, write_json
from feature_repo.params import root
from feature_repo.picture import Figure
from feature_repo.places import (
    EVALUATION,
    EVENTS,
    HEADLINE,
    IMPRESSIONS,
    ITEMS,
    RANKER_TRAINING,
    RESULTS,
    at,
    existing,
)
from feature_repo.terminal import console, table
from pipelines.blend.ladder import RUNGS, lines
from pipelines.protocol.metrics import OURS, fingerprint

COLUMNS = (
    ("ndcg_at_12", "NDCG@12", ".3f"),
    ("coverage_at_12", "coverage", ".2f"),
    ("recall_at_12", "recall@12", ".3f"),
    ("novelty", "novelty, bits", ".1f"),
    ("arp", "ARP, events", ",.0f"),
    ("gini", "Gini", ".2f"),
)


def write_report(report: dict[str, Any]) -> None:
    """evaluate.json, evaluate.csv (a row per model, for `dvc plots`), evaluate.png and headline.json."""
    file = at(EVALUATION)
    write_json(file, report)
    write_json(at(HEADLINE), headline(report))
    rows = ["model,ndcg_at_12,coverage_at_12"]
    for name, found in report["models"].items():
        rows.append(f"{name},{found['ndcg_at_12']:.6f},{found['coverage_at_12']:.6f}")
    file.with_suffix(".csv").write_text("\n".join(rows) + "\n")
    _picture(report, file.with_suffix(".png"))


def headline(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers that `dvc metrics diff` and `dvc exp show` tell, four decimals.

    `best_single` is the NDCG@12 of the best baseline, `over_best` ours by it; null where that found nothing.
    """
    ours = report["models"][OURS]
    best = max(found["ndcg_at_12"] for name, found in report["models"].items() if name != OURS)
    shown = ("ndcg_at_12", "coverage_at_12", "recall_at_12", "recall_at_120")
    numbers = {name: round(ours[name], 4) for name in shown}
    over = round(ours["ndcg_at_12"] / best, 4) if best else None
    told = {"shop": report["shop"], "queries": report["queries"]}
    return told | numbers | {"best_single": round(best, 4), "over_best": over}


def log_report(report: dict[str, Any]) -> None:
    """The evaluation to the MLflow run of its release: metrics, datasets, reports, params.yaml."""
    from training.tracking import evaluated  # MLflow takes seconds to import

    run = evaluated(fingerprint(report))
    parts = {"": report["models"][OURS]} | {f"{name}/": found for name, found in report["slices"].items()}
    parts |= {f"{name}/": found for name, found in report["models"].items() if name != OURS}
    parts |= {
        f"{name}/": {"hit_rate_at_12": f["hit_rate_at_12"]} for name, f in report.get("surfaces", {}).items()
    }
    run.metrics({f"{of}{name}": float(value) for of, found in parts.items() for name, value in found.items()})
    run.data([at(place) for place in (EVENTS, IMPRESSIONS, ITEMS, RANKER_TRAINING)], "training")
    run.data([at(RESULTS)], "evaluation")
    for file in (at(EVALUATION), at(EVALUATION).with_suffix(".png"), at(RESULTS), root() / "params.yaml"):
        run.artifact(file)


def read_report() -> dict[str, Any]:
    """The last evaluation. Raises DataError if there is none that can be read."""
    path, keys = (
        existing(EVALUATION, "evaluate"),
        ("shop", "queries", "span", "models", "slices", "clicks", "surfaces", "serves", "why"),
    )
    return read_json(path, "run `endcap evaluate`", *keys)


def show(report: dict[str, Any]) -> None:
    """The report as tables on the terminal: models, then slices of ours."""
    out = console()
    title = f"{report['shop']}: {report['queries']:,} queries since {report['span']['from'][:10]}, "
    columns = ("model", *(f">{name}" for _, name, _ in COLUMNS))
    models = table(title + f"{report['candidates']:,} candidates", columns)
    best_first = sorted(report["models"].items(), key=lambda entry: -entry[1]["ndcg_at_12"])
    for name, metrics in best_first:
        cells = [format(metrics[key], spec) for key, _, spec in COLUMNS]
        models.add_row(name, *cells, style="bold" if name == OURS else None)
    out.print(models)
    ours = report["models"][OURS]
    out.print(
        f"{OURS}: NDCG@12 95 % interval {ours['ndcg_low']:.3f} to {ours['ndcg_high']:.3f}, "
        "sessions resampled;\n"
        f"recall of the 120 candidates {ours['recall_at_120']:.3f}"
    )
    out.print(report["why"], soft_wrap=True)
    slices = table(f"slices of {OURS}", ("slice", ">queries", ">NDCG@12", ">coverage"))
    for name, found in report["slices"].items():
        numbers = (f"{found['queries']:,}", f"{found['ndcg_at_12']:.3f}", f"{found['coverage_at_12']:.2f}")
        slices.add_row(name.replace("_", " "), *numbers)
    out.print(slices)
    if report["clicks"]:
        rungs = table("logged lists: share of the best DCG", ("visit", ">lists", *(f">{r}" for r in RUNGS)))
        for rung in lines(report["clicks"]):
            rungs.add_row(*rung)
        out.print(rungs)
    surfaces = table(
        f"surfaces: hit rate@{report['k']} of each one's own truth",
        ("surface", ">asked", ">ours", "baseline", "difference, 95 %"),
    )
    for name, found in report["surfaces"].items():
        low, high = found["over"]
        base = f"{found['baseline_hit_rate_at_12']:.3f} {found['baseline']}"
        numbers = (f"{found['queries']:,}", f"{found['hit_rate_at_12']:.3f}", base)
        surfaces.add_row(name, *numbers, f"{low:+.3f} to {high:+.3f}")
    out.print(surfaces)


def _picture(report: dict[str, Any], path: Path) -> None:
    """NDCG@12 with its interval against coverage: one point per model."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, metrics in report["models"].items():
        ours = name == OURS
        color = "#1b6ca8" if ours else "#7a8793"
        x, y = metrics["coverage_at_12"], metrics["ndcg_at_12"]
        spread = [[y - metrics["ndcg_low"]], [metrics["ndcg_high"] - y]]
        axes.errorbar(x, y, yerr=spread, fmt="o", color=color, capsize=3, markersize=8 if ours else 6)
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(9, 4), color=color)
    axes.set(xlabel="coverage@12", ylabel="NDCG@12, 95 % interval", xlim=(0, 1.05))
    axes.set_ylim(bottom=0)
    axes.set_title(f"Session continuation, {report['shop']}: {report['queries']:,} queries", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
