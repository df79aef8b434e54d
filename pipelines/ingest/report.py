"""What an import did, for a machine (JSON), for a terminal (text) and for the eye (a picture)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes

from feature_repo.picture import Figure
from pipelines.ingest.adapters.cells import Extract
from pipelines.ingest.profile import Profile
from pipelines.ingest.quarantine import Intake
from pipelines.ingest.ties import Ties


@dataclass(frozen=True)
class Reason:
    """Why rows are in quarantine, were passed over, or have a mended field."""

    field: str
    reason: str
    rows: int
    line: int | None = None  # of the first, where the file has lines


@dataclass(frozen=True)
class Part:
    """Rows of one part of the export: rows_in == accepted + quarantined + skipped."""

    source: str
    rows_in: int
    accepted: int
    quarantined: int
    reasons: tuple[Reason, ...]  # most rows first
    skipped: int
    skips: tuple[Reason, ...]  # rows that are no events of ours
    repaired: tuple[Reason, ...]  # accepted rows whose field was mended
    told: tuple[str, ...]  # what was found out about the files' form

    @staticmethod
    def count(extract: Extract, intake: Intake, part: int, refused: pa.Table) -> Part:
        """`refused` has the columns field and reason (pipelines.ingest.quarantine.QUARANTINE)."""
        rows_in, accepted = intake.rows(part)
        skips = tuple(Reason(*found) for found in intake.skipped(part))
        repaired = tuple(Reason(*found) for found in intake.repaired(part))
        counted = refused.group_by(["field", "reason"]).aggregate([([], "count_all"), ("line", "min")])
        reasons = [
            Reason(group["field"], group["reason"], group["count_all"], group["line_min"])
            for group in counted.to_pylist()
        ]
        ordered = tuple(sorted(reasons, key=lambda reason: (-reason.rows, reason.field, reason.reason)))
        skipped, source = sum(why.rows for why in skips), extract.files[0]
        if rows_in != accepted + refused.num_rows + skipped:
            raise RuntimeError(f"{source}: {rows_in} rows in, {accepted} out, {refused.num_rows} refused")
        return Part(
            source, rows_in, accepted, refused.num_rows, ordered, skipped, skips, repaired, extract.told
        )


@dataclass(frozen=True)
class Output:
    """One file of data/raw."""

    rows: int
    types: Mapping[str, int]
    first: str | None  # ISO instant
    last: str | None

    @staticmethod
    def of(rows: int, types: Sequence[tuple[str, int, datetime, datetime]]) -> Output:
        """`types`: type, how many, first and last instant (pipelines.ingest.quarantine.Intake.types)."""
        first = min(row[2] for row in types).isoformat() if types else None
        last = max(row[3] for row in types).isoformat() if types else None
        return Output(rows, {name: count for name, count, *_ in types}, first, last)


@dataclass(frozen=True)
class IngestReport:
    """One run of the ingest job; holds no wall-clock time, so the same data gives the same bytes."""

    shop: str
    parts: Mapping[str, Part]
    outputs: Mapping[str, Output]  # empty when the import was refused
    ties: Ties
    profile: Profile | None  # None when the import was refused
    accepted: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        outputs = {
            name: asdict(output) | {"types": dict(sorted(output.types.items()))}
            for name, output in self.outputs.items()
        }
        parts = {name: asdict(part) for name, part in self.parts.items()}
        found = {"parts": parts, "outputs": outputs, "ties": asdict(self.ties)}
        found["profile"] = asdict(self.profile) if self.profile else {}
        return {"shop": self.shop, "accepted": self.accepted, **found}

    def as_text(self) -> str:
        """One line per file in, per reason and per file out."""
        lines = []
        for name, part in self.parts.items():
            form = "; ".join((part.source, *part.told))
            lines.append(
                f"{name:<12} {part.rows_in:>10,} rows in, {part.quarantined:,} to quarantine ({form})"
            )
            for why in part.reasons:
                first = f"; the first is line {why.line}" if why.line else ""
                lines.append(f"{'':<12} {why.rows:>10,} {why.field}: {why.reason}{first}")
            lines += [f"{'':<12} {why.rows:>10,} skipped, {why.field}: {why.reason}" for why in part.skips]
            lines += [f"{'':<12} {why.rows:>10,} kept, {why.field} {why.reason}" for why in part.repaired]
        lines += [f"{'times' if not i else '':<12} {line}" for i, line in enumerate(self.ties.in_words())]
        for name, output in self.outputs.items():
            lines.append(f"data/raw/{name + '.parquet':<20} {output.rows:>10,} rows")
        lines += [f"{'absent':<12} {line}" for line in (self.profile.in_words() if self.profile else ())]
        return "\n".join(lines)


def draw(report: IngestReport, path: Path) -> None:
    """Picture: accepted rows per type on a log scale, and quarantined rows per reason."""
    types: Counter[str] = Counter()
    for name, output in report.outputs.items():
        types += Counter(output.types or {name: output.rows})
    reasons: Counter[str] = Counter()
    for name, part in report.parts.items():
        for reason in part.reasons:
            text = reason.reason if len(reason.reason) <= 46 else reason.reason[:45] + "…"
            reasons[f"{name}.{reason.field}\n{text}"] += reason.rows
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _bars(left, types, f"{report.shop}: rows in data/raw", "tab:blue", "none: the import was refused")
    _bars(right, reasons, "rows in quarantine, by reason", "tab:red", "none")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _bars(axes: Axes, counts: Counter[str], title: str, colour: str, empty: str) -> None:
    shown = counts.most_common(10)[::-1]
    axes.set_title(title)
    if not shown:
        axes.text(0.5, 0.5, empty, ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    bars = axes.barh([name for name, _ in shown], [rows for _, rows in shown], color=colour)
    axes.bar_label(bars, labels=[f"{rows:,}" for _, rows in shown], padding=3)
    axes.set_xscale("log")
    axes.set_xlim(left=0.5, right=max(rows for _, rows in shown) * 8)
    axes.set_ylim(-0.6, max(len(shown), 5) - 0.4)  # a single bar need not fill the picture
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
