"""`endcap gate`: data/reports/evaluate.json against the bar -> gate.json, .png, .html, exit 1 if it fails."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from feature_repo.files import read_json, write_json
from feature_repo.params import load, root
from feature_repo.picture import Figure
from feature_repo.places import (
    EVALUATION,
    LEAKAGE,
    PASSED,
    PROPENSITIES,
    SCORES,
    VERDICT,
    VERDICT_PAGE,
    at,
    existing,
)
from feature_repo.terminal import console, table
from pipelines.gates.bar import FEW, GateParams, Verdict, honest
from pipelines.gates.dossier import write_page
from pipelines.gates.margins import surfaces, verdict_of
from pipelines.gates.scores import Scores
from pipelines.protocol.metrics import OURS, fingerprint
from pipelines.protocol.offpolicy import OffPolicy, OffPolicyParams, estimate, read_log


def verdict_json(verdict: Verdict, report: Mapping[str, Any], champion: str | None) -> dict[str, Any]:
    """What gate.json and a bundle's manifest hold; `champion`: digest of the release that is the bar."""
    return {
        "passed": verdict.passed,
        "against": verdict.against,
        "champion": champion,
        "evaluation": fingerprint(report),
        "checks": verdict.to_json(),
    }


def told(verdict: Verdict) -> Table:
    """The checks for a person: metric, value, needed, missing by."""
    bar = {"champion": "the champion", FEW: FEW}.get(verdict.against, f"the best baseline, {verdict.against}")
    shown = table(f"Gate against {bar}", ("metric", ">value", ">allowed", "because", ">missing by"))
    for check in verdict.checks:
        missing, style = check.state if check.state == "told" else "-", None
        if not check.passed:
            missing, style = f"{check.missing:.4g} ({check.missing / (abs(check.needed) or 1):.1%})", "red"
        value, needed = f"{check.value:.4g}", f"{'≤' if check.most else '≥'} {check.needed:.4g}"
        shown.add_row(check.name, value, needed, check.because, missing, style=style)
    return shown


def picture(report: Mapping[str, Any], verdict: Verdict, path: Path) -> None:
    """NDCG@12 with its interval and coverage@12 of every model, each with the line that ours must reach."""
    models = sorted(report["models"], key=lambda name: (name != OURS, -report["models"][name]["ndcg_at_12"]))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    named = {"ndcg_at_12": "NDCG@12", "coverage_at_12": "coverage@12"}
    for panel, (metric, title) in zip(panels, named.items(), strict=True):
        values = [report["models"][name][metric] for name in models]
        tops = values
        panel.bar(models, values, color=["#1b6ca8" if name == OURS else "#b8c4cc" for name in models])
        if metric == "ndcg_at_12":
            tops = [report["models"][name]["ndcg_high"] for name in models]
            panel.vlines(models, [report["models"][name]["ndcg_low"] for name in models], tops, color="#444")
        bars = [check.needed for check in verdict.checks if check.name.startswith(metric)]
        needed = max(bars, default=0.0)
        if bars:
            panel.axhline(needed, color="#c0392b", linestyle="--", linewidth=1)
        panel.set_title(f"{title}, needed {needed:.3f}" if bars else f"{title}, not judged", loc="left")
        for name, value, top in zip(models, values, tops, strict=True):
            over = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            panel.annotate(f"{value:.3f}", (name, top), **over, bbox=box)
        panel.set_ylim(0, max([*tops, needed, 0.01]) * 1.15)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("gate passed" if verdict.passed else "gate FAILED", x=0.99, ha="right", fontsize=10)
    figure.savefig(path, dpi=120)


def champion_report() -> tuple[str, dict[str, Any], Path] | None:
    """Digest, evaluation and folder of the registered champion; None without one, or where it is not here."""
    from pipelines.release.registry import Registry, store  # MLflow takes seconds to import

    if not store().exists():  # no run of this shop was tracked; opening a registry would create it
        return None
    version = Registry().holder("champion")
    manifest = version.release.manifest() if version else None
    if not version or not manifest or not manifest.get("metrics"):
        return None
    return manifest["digest"], manifest["metrics"], root() / version.release.path


def off_policy() -> OffPolicy | None:
    """What logged propensities say of the candidate; None where the shop has none. No check reads it."""
    path = at(PROPENSITIES)
    return estimate(read_log(path), load("off_policy", OffPolicyParams)) if path.exists() else None


def _log(report: Mapping[str, Any], verdict: Verdict) -> None:
    """Verdict and picture to the MLflow run of the evaluation, where this shop's runs are tracked."""
    from pipelines.release.registry import store

    if store().exists():
        from training.tracking import evaluated

        run = evaluated(fingerprint(report), "gate")
        run.metrics({"passed": float(verdict.passed)})
        for name in (VERDICT, VERDICT.with_suffix(".png"), VERDICT_PAGE):
            run.artifact(at(name))


def main(
    as_json: Annotated[bool, typer.Option("--json", help="print gate.json instead of the table")] = False,
) -> int:
    """Judge the newest evaluation: exit 1, with what is missing, if it must not be released."""
    report = read_json(existing(EVALUATION, "evaluate"), "run `endcap evaluate`")
    champion, params = champion_report(), load("gate", GateParams)
    scores = Scores.read(at(SCORES), fingerprint(report))
    verdict = verdict_of(report, scores, champion and champion[1:], params)
    leaks = honest(read_json(existing(LEAKAGE, "leakage"), "run `endcap leakage`", "rows", "queries"))
    verdict = verdict.plus((*surfaces(report, params), *leaks))
    in_the_bar = champion[0] if champion and verdict.against == "champion" else None
    logged = off_policy()
    warned = logged.warning(load("off_policy", OffPolicyParams).min_effective) if logged else ""
    besides = {"off_policy": asdict(logged) | {"warning": warned}} if logged else {}
    written = write_json(at(VERDICT), verdict_json(verdict, report, in_the_bar) | besides)
    failed = sum(not check.passed for check in verdict.checks)
    write_json(at(PASSED), {"gate_passed": int(verdict.passed), "checks_failed": failed})
    drawn = at(VERDICT).with_suffix(".png")
    picture(report, verdict, drawn)
    notes = [f"off-policy CTR of the candidate: {logged.told()}"] if logged else []
    notes += [f"warning: {warned}"] if warned else []
    write_page(at(VERDICT_PAGE), f"Gate, {report.get('shop', '')}", verdict, notes, [drawn.read_bytes()])
    _log(report, verdict)
    if as_json:
        print(written.decode())
        return 0 if verdict.passed else 1
    out = console()
    out.print(told(verdict))
    if verdict.against == FEW:
        found = f"NDCG@12 {report['models'][OURS]['ndcg_at_12']:.3f} is not judged"
        out.print(f"{report['queries']} queries say little: {found}.")
        out.print("It serves on trial; a release that answers the same queries is compared with it.")
    if champion and in_the_bar is None:
        out.print("The champion was measured on other queries, so the best baseline is the bar.")
    for note in notes:
        out.print(note, style="yellow" if note.startswith("warning") else None, soft_wrap=True)
    failing = f"FAILED: nothing is promoted; {VERDICT_PAGE} says what to do"
    out.print("passed" if verdict.passed else failing, style="bold", soft_wrap=True)
    return 0 if verdict.passed else 1
