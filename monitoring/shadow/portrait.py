"""The report of a release in the shadow: lines for a terminal of 80 columns, and a picture."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.table import Table

from feature_repo.clock import instant
from feature_repo.picture import Figure
from feature_repo.terminal import table
from monitoring.shadow.pairing import ALL, Shadowed

COLUMNS = ("surface", ">pairs", ">overlap", ">RBO", ">equal", ">shown ms", ">shadow ms", ">expected")


def rows(found: Shadowed) -> Table:
    """A line per surface; milliseconds as p50 / p99, expected CTR in per mille."""
    made = table(f"{found.digest} in the shadow", COLUMNS)
    for name, one in found.alike.items():
        ms = [f"{times[0]:.1f} / {times[-1]:.0f}" for times in (one.shown_ms, one.shadow_ms)]
        chances = " > ".join(f"{1000 * chance:.1f}" for chance in one.expected) if one.expected else "-"
        told = (f"{one.pairs:,}", f"{one.overlap:.2f}", f"{one.rbo:.2f}", f"{one.same:.0%}", *ms, chances)
        made.add_row(name, *told, style="bold" if name == ALL else None)
    return made


def line(found: Shadowed) -> str:
    """The whole in one line."""
    if ALL not in found.alike:
        return f"{found.digest[:12]} was computed beside no answer" + _trouble(found)
    one = found.alike[ALL]
    told = f"beside {found.pairs:,} answers {12 * one.overlap:.1f} of 12 products are the same"
    return f"{told}, RBO {one.rbo:.2f}, {one.shadow_ms[0]:.1f} ms a list{_trouble(found)}"


def notes(found: Shadowed, off_policy: str) -> Iterator[str]:
    """What the table does not say; `off_policy`: what the gate told of logged propensities, or ""."""
    if found.since_us:
        yield f"{instant(found.since_us):%Y-%m-%d %H:%M} to {instant(found.until_us):%Y-%m-%d %H:%M} UTC"
    yield f"{found.pairs:,} lists, {found.empty} with empty slots, {found.failed} failed{_trouble(found)}"
    if ALL not in found.alike:
        return
    if found.alike[ALL].expected:
        yield "expected: clicks per 1,000 slots, each list by its own release's calibration."
        yield "That is what two models think of themselves; a canary measures it."
    else:
        yield "expected CTR: unknown, for the bundles hold no calibrated chance of a click."
        yield off_policy or "Nor were propensities logged that could tell it; a canary measures it."
    yield "The shadow's milliseconds are those of a thread that lets requests go first."


def _trouble(found: Shadowed) -> str:
    return f"; {found.error}" if found.error else ""


def picture(found: Shadowed, path: Path) -> None:
    """Overlap and rank-biased overlap by surface, and the latency of both."""
    names = list(found.alike)
    figure = Figure(figsize=(9, 0.6 + 0.55 * max(len(names), 3)), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = np.arange(len(names))[::-1]
    left.barh(at + 0.2, [found.alike[n].overlap for n in names], 0.38, color="#1b6ca8", label="overlap@12")
    left.barh(at - 0.2, [found.alike[n].rbo for n in names], 0.38, color="#e39b3a", label="RBO, p = .9")
    left.set_yticks(at, [f"{name} ({found.alike[name].pairs:,})" for name in names])
    left.set_xlim(0, 1)
    left.set_title("how alike the lists are", loc="left")
    for offset, colour, of in ((0.2, "#444", "shown"), (-0.2, "#c0392b", "shadow")):
        for height, name in zip(at, names, strict=True):
            middle, _, high = getattr(found.alike[name], f"{of}_ms")
            right.plot([middle, high], [height + offset] * 2, color=colour, label=of if not height else None)
            right.plot(middle, height + offset, "o", color=colour, markersize=4)
    right.set_yticks(at, [""] * len(names))
    right.set_xlim(left=0)
    right.set_title("ms a list, p50 (dot) to p99", loc="left")
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
