"""`endcap drift`: what is served now against what the ranker learned from -> drift.html, drift.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from feature_repo.params import load, root
from monitoring.drift.distances import SERVED, Drift, DriftParams, compare, read_served, sample_training
from pipelines.release.aliases import connect

TRAINING = Path("data/features/ranker_training.parquet")
LIVE = Path("data/feedback/live_features.parquet")
PAGE = Path("data/reports/drift.html")
NUMBERS = Path("data/reports/drift.json")


def main(
    training: Annotated[Path, typer.Option(help="parquet file that has the 28 columns")] = TRAINING,
    live: Annotated[Path | None, typer.Option(help="parquet file of live rows; default: from Redis")] = None,
    fail_over: Annotated[
        float | None, typer.Option(min=0, max=1, help="exit 1 if a larger share of features drifted")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print drift.json instead of the table")] = False,
) -> int:
    """Compare served features and traffic mix with the training rows; a finding, no failure."""
    params = load("drift", DriftParams)
    reference = sample_training(_parquet(training, [*COLUMNS], "run `endcap ranker_data`"), params)
    rows = _fetch(params) if live is None else _parquet(live, ["request_id", "ts", *COLUMNS], "name a file")
    drift = compare(reference, rows, params)
    (root() / PAGE).parent.mkdir(parents=True, exist_ok=True)
    from monitoring.drift.page import write_page  # Evidently takes seconds to import

    write_page(reference, rows, params, root() / PAGE, drift.not_judged)
    written = orjson.dumps(drift_json(drift), option=orjson.OPT_INDENT_2)
    (root() / NUMBERS).write_bytes(written)
    if as_json:
        print(written.decode())
    else:
        _tell(drift)
    return int(fail_over is not None and drift.share > fail_over)


def drift_json(drift: Drift) -> dict[str, Any]:
    """What drift.json holds."""
    columns = [
        asdict(column) | {"class": column.feature_class, "finding": column.finding, "drifted": column.drifted}
        for column in drift.columns
    ]
    return asdict(drift) | {"share_drifted": drift.share, "columns": columns}


def _fetch(params: DriftParams) -> pd.DataFrame:
    """The sampled answers of the stream, kept on disk so that a finding can be looked into later."""
    with connect() as redis:
        rows, others = read_served(redis, params.newest_answers)
    for schema, answers in others.items():
        left = (
            f"{SERVED}: {answers:,} answers of feature schema {schema} are left out; ours is {schema_hash()}"
        )
        typer.echo(left, err=True)
    if not len(rows):
        problem = f"holds no answer of feature schema {schema_hash()}"
        raise DataError(SERVED, problem, next_step="send the service some requests")
    (root() / LIVE).parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(root() / LIVE, compression="zstd", index=False)
    return rows


def _parquet(path: Path, columns: list[str], next_step: str) -> pd.DataFrame:
    file = root() / path
    if not file.exists():
        raise DataError(path, "not found", next_step=next_step)
    try:
        return pd.read_parquet(file, columns=columns)
    except (ValueError, OSError) as error:  # pyarrow: a column is missing, the file is truncated
        raise DataError(path, str(error).partition("\n")[0], next_step=next_step) from error


def _tell(drift: Drift) -> None:
    console = Console()
    shown = Table(title="Features, live against training", title_justify="left")
    for name in ("feature", "class", "finding", "distance", "limit", "mean then", "mean now", "missing"):
        shown.add_column(name, justify="left" if name in ("feature", "class", "finding") else "right")
    order = sorted(drift.columns, key=lambda c: (not c.drifted, -(c.distance or 0) / c.limit))
    for column in order:
        shown.add_row(
            column.name,
            column.feature_class,
            column.finding,
            _number(column.distance),
            _number(column.limit),
            _number(column.mean_training),
            _number(column.mean_live),
            f"{column.missing_training:.0%} -> {column.missing_live:.0%}",
            style="yellow" if column.drifted else None,
        )
    console.print(shown)
    drifted = sum(column.drifted for column in drift.columns)
    console.print(
        f"{drifted} of {len(drift.columns)} features moved; known shoppers: {drift.known_training:.0%} of "
        f"training rows, {drift.known_live:.0%} of {drift.answers} answers in {drift.hours:.1f} hours"
    )
    if drift.not_judged:
        console.print(f"not judged: {', '.join(drift.not_judged)} (live rows span less than a day)")
    if not drift.enough:
        console.print("too few answers: the distances are mostly chance", style="bold")
    console.print(f"distributions: {PAGE}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
