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
from feature_repo.files import whole
from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.places import DRIFT, FEEDBACK, RANKER_TRAINING, REPORTS, at, existing
from monitoring.drift.distances import Drift, DriftParams, compare, read_served, sample_training
from serving.live.exposures import SERVED

LIVE = FEEDBACK / "live_features.parquet"
PAGE = DRIFT.with_suffix(".html")


def main(
    training: Annotated[Path, typer.Option(help="parquet file that has the 28 columns")] = RANKER_TRAINING,
    live: Annotated[Path | None, typer.Option(help="parquet file of live rows; default: from Redis")] = None,
    fail_over: Annotated[
        float | None, typer.Option(min=0, max=1, help="exit 1 if a larger share of features drifted")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print drift.json instead of the table")] = False,
) -> int:
    """Compare served features and traffic mix with the training rows; a finding, no failure."""
    params = load("drift", DriftParams)
    reference = sample_training(_parquet(training, [*COLUMNS]), params)
    rows = _fetch(params) if live is None else _parquet(live, ["request_id", "ts", *COLUMNS], "drift")
    drift = compare(reference, rows, params)
    at(REPORTS).mkdir(parents=True, exist_ok=True)
    from monitoring.drift.page import write_page  # Evidently takes seconds to import

    write_page(reference, rows, params, at(PAGE), drift.not_judged)
    written = orjson.dumps(drift_json(drift), option=orjson.OPT_INDENT_2)
    at(DRIFT).write_bytes(written)
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
    with whole(at(LIVE)) as draft:
        rows.to_parquet(draft, compression="zstd", index=False)
    return rows


def _parquet(path: Path, columns: list[str], job: str = "ranker_data") -> pd.DataFrame:
    try:
        return pd.read_parquet(existing(path, job), columns=columns)
    except (ValueError, OSError) as error:  # pyarrow: a column is missing, the file is truncated
        raise DataError(path, str(error).partition("\n")[0], next_step=f"run `endcap {job}` again") from error


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
