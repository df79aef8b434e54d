"""`endcap compare A B`: two evaluations of one shop, over the queries that both answered.

A side is a project folder, or a git revision or DVC experiment of the active project; the second is the
active project itself where none is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from feature_repo.files import write_json
from feature_repo.params import load
from feature_repo.picture import Figure
from feature_repo.places import COMPARISON, at
from feature_repo.terminal import console, table
from pipelines.compare.differences import Difference, changed, measured, paired, sliced
from pipelines.compare.lists import Example, examples, overlap
from pipelines.compare.sides import here, side, titles
from pipelines.protocol.queries import QueryParams
from pipelines.protocol.results import SLICES

STYLES = {"better": "green", "worse": "red", "": None}
SHOWN, CUT = 3, 66  # titles of an example on the terminal, and the characters of each


def main(
    a: Annotated[str, typer.Argument(help="A project folder, a git revision or a DVC experiment.")],
    b: Annotated[str | None, typer.Argument(help="The other; without it the active project.")] = None,
    shown: Annotated[int, typer.Option("--examples", min=0, help="Lists shown, better and worse.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print compare.json instead of tables.")] = False,
) -> None:
    """Two experiments, query by query: metrics with intervals, slices, params, lists that differ."""
    one, other = side(a), side(b or here())
    both, seed = paired(one, other), load("queries", QueryParams).seed
    metrics, slices = measured(both, one, other, seed), sliced(both, seed)
    comparison = {
        "shop": other.report["shop"],
        "a": {"name": a, "serves": one.report["serves"], "queries": len(one.results)},
        "b": {"name": b or "workspace", "serves": other.report["serves"], "queries": len(other.results)},
        "queries": len(both),
        "metrics": [asdict(found) | {"verdict": found.verdict} for found in metrics],
        "slices": [asdict(found) | {"verdict": found.verdict} for found in slices],
        "params": changed(one.params, other.params),
        "lists": asdict(overlap(both)),
        "examples": [asdict(found) for found in examples(both, titles(), shown)],
    }
    written = write_json(at(COMPARISON), comparison)
    picture(comparison, metrics, slices, at(COMPARISON).with_suffix(".png"))
    if as_json:
        print(written.decode())
        return
    show(comparison, metrics, slices)


def show(comparison: Mapping[str, Any], metrics: Sequence[Difference], slices: Sequence[Difference]) -> None:
    """The comparison as tables that 80 columns hold."""
    out = console()
    for name in "ab":
        told = comparison[name]
        line = f"{name.upper()}  {told['name']}: {told['serves']} serves, {told['queries']:,} queries"
        out.print(line, markup=False)
    out.print(f"{comparison['queries']:,} queries are in both; 95 % intervals of B - A, sessions resampled\n")
    out.print(_numbers("metric", metrics))
    out.print(_numbers("NDCG@12, queries", slices))
    params = table("changed params", ("param", ">A", ">B"))
    for name, values in comparison["params"].items():
        params.add_row(*(Text(str(cell)) for cell in (name, *values)))
    out.print(params if comparison["params"] else "no param differs: code, data or chance does")
    lists = comparison["lists"]
    out.print(f"lists: {lists['same']:.0%} are the same, {lists['common']:.1f} of 12 items are in both")
    for found in comparison["examples"]:
        out.print(_example(Example(**found)))
    out.print(f"{COMPARISON.with_suffix('.png')} draws it, {COMPARISON} holds it")


def _numbers(title: str, found: Sequence[Difference]) -> Table:
    numbers = table(None, (title, ">A", ">B", ">B - A", ">interval", ""))
    for one in found:
        interval = "" if one.low is None else f"{one.low:+.4f} {one.high:+.4f}"
        cells = (f"{one.a:.4f}", f"{one.b:.4f}", f"{one.b - one.a:+.4f}", interval)
        name = one.name.replace("_at_", "@").replace("_", " ")
        name = f"{name}, {one.queries:,}" if one.name in SLICES else name
        numbers.add_row(name, *cells, one.verdict, style=STYLES[one.verdict])
    return numbers


def _example(found: Example) -> Text:
    """What is in one list only, a title a line; what was wanted stands in asterisks."""
    lines = [f"NDCG@12 {found.a:.3f} in A, {found.b:.3f} in B, after {found.after}"[: CUT + 6]]
    for name, items in (("A", found.only_a), ("B", found.only_b)):
        told = [f"*{item[:CUT]}*" if item in found.wanted else item[:CUT] for item in items[:SHOWN]]
        more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
        lines += [f"  {name}  {item}" for item in (*told, *more)]
    return Text("\n".join(lines))


def picture(
    comparison: Mapping[str, Any], metrics: Sequence[Difference], slices: Sequence[Difference], path: Path
) -> None:
    """B - A of each measure and slice with its interval, against the line of no difference."""
    drawn = [one for one in (*metrics, *slices) if one.low is not None and one.high is not None]
    figure = Figure(figsize=(7.5, 0.42 * len(drawn) + 1.5), layout="constrained")
    axes = figure.subplots()
    colors = {"better": "#2e7d32", "worse": "#c0392b", "": "#7a8793"}
    for place, one in enumerate(reversed(drawn)):
        middle, color = one.b - one.a, colors[one.verdict]
        spread = [[middle - (one.low or 0.0)], [(one.high or 0.0) - middle]]
        axes.errorbar(middle, place, xerr=spread, fmt="o", color=color, capsize=3)
    names = [f"{one.name.replace('_', ' ')} ({one.queries:,})" for one in reversed(drawn)]
    axes.set_yticks(range(len(drawn)), names)
    axes.axvline(0, color="#444", linewidth=1)
    axes.set_xlabel("B - A with 95 % interval; slices: NDCG@12 (queries)")
    axes.set_title(f"A: {comparison['a']['name']}    B: {comparison['b']['name']}", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
