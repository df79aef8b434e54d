"""From lists to numbers: means over seeds, intervals over visits, the distance to the best single model."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.picture import Figure
from pipelines.protocol.metrics import bootstrap_interval

Doubles = npt.NDArray[np.float64]
DRAWS = 1000


class Cost(NamedTuple):
    """CPU seconds of one fit, and by how much the process' memory rose at its highest (10^9 bytes)."""

    cpu_seconds: float
    peak_gb: float


class Result(NamedTuple):
    """One model on every query. `values`: metric -> (seeds, q); others are told as they are."""

    values: dict[str, Doubles]
    told: dict[str, Any]


def measured(work: Callable[[], Any]) -> Cost:
    """Run `work` in this process. Memory is that of Linux' high-water mark, 0 where it cannot be set back."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, began = _resident("VmRSS"), time.process_time()
    work()
    return Cost(time.process_time() - began, max(0.0, _resident("VmHWM") - before))


def _resident(name: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e9


def summed(
    results: Mapping[str, Result], metric: str, clusters: npt.NDArray[Any], single: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Per model: the mean of every metric, the 95 % interval of `metric`, and that of its distance to the
    best of `single` on the same queries; visits (`clusters`) are drawn with replacement.
    """
    best = max(single, key=lambda name: float(results[name].values[metric].mean()))
    base = results[best].values[metric].mean(axis=0)
    models = {}
    for name, result in results.items():
        rng = np.random.default_rng(seed)
        found: dict[str, Any] = dict(result.told)
        for key, values in result.values.items():
            found[key] = float(np.nanmean(values))
        mine = result.values[metric]
        found["interval"] = bootstrap_interval(mine.mean(axis=0), rng, DRAWS, clusters=clusters)
        found["seeds"] = [float(one.mean()) for one in mine]
        low, high = bootstrap_interval(mine.mean(axis=0) - base, rng, DRAWS, clusters=clusters)
        found["above_best_single"] = [low, high]
        found["times_best_single"] = float(mine.mean() / base.mean()) if base.mean() else None
        models[name] = found
    for name in models:
        models[name]["best_single"] = name == best
    return models


COSTS = (("fit_cpu_s", ".2f"), ("fit_gb", ".2f"), ("answer_ms", ".2f"))
Columns = Sequence[tuple[str, str, str]]  # key, heading, format


def lines(models: Mapping[str, Mapping[str, Any]], columns: Columns) -> list[str]:
    """A table in Markdown, best first by the first of `columns`; the best single model stands in bold."""
    heads = ["model", *(head for _, head, _ in columns), "95 %", "to the best single, 95 %", "x best single"]
    heads += ["fit, CPU s", "GB", "answer, CPU ms"]
    rows = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name, found in sorted(models.items(), key=lambda entry: -entry[1][columns[0][0]]):
        apart = "{:+.3f} .. {:+.3f}".format(*found["above_best_single"])
        cells = [f"**{name}**" if found["best_single"] else name]
        cells += [cell(found.get(key), spec) for key, _, spec in columns]
        cells += ["{:.3f} .. {:.3f}".format(*found["interval"]), "" if found["best_single"] else apart]
        cells += [cell(found["times_best_single"], ".2f")]
        cells += [cell(found.get(key), spec) for key, spec in COSTS]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def cell(value: float | None, spec: str) -> str:
    """`value` as `spec` says, a dash for None."""
    return "-" if value is None else format(value, spec)


def draw(title: str, models: Mapping[str, Mapping[str, Any]], metric: str, label: str, path: Path) -> None:
    """`metric` of every model with its interval, ours in blue, the best single model's value as a line."""
    names = sorted(models, key=lambda name: models[name][metric])
    figure = Figure(figsize=(8, 0.32 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        found = models[name]
        low, high = found["interval"]
        color = "#1b6ca8" if name.startswith("endcap") else "#7a8793"
        spread = [[max(0.0, found[metric] - low)], [max(0.0, high - found[metric])]]
        axes.errorbar(found[metric], place, xerr=spread, fmt="o", color=color, capsize=3)
        if found["best_single"]:
            axes.axvline(found[metric], color="#c0c7ce", linewidth=1, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=label, xlim=(0, None))
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
