"""`endcap drift`: live answers against their like of the release -> drift.html, drift.json, drift.png."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from feature_repo.files import whole, write_json
from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.places import DRIFT, FEEDBACK, REFERENCE, at
from feature_repo.terminal import console, reader, table
from monitoring.drift.distances import (
    CATEGORIES,
    CLASS_OF,
    TOLD,
    ColumnDrift,
    Drift,
    DriftParams,
    compare,
    read_served,
)
from serving.live.exposures import SERVED
from serving.release import state as control

LIVE = FEEDBACK / "live_features.parquet"
PAGE, PICTURE = DRIFT.with_suffix(".html"), DRIFT.with_suffix(".png")
NEED = [*(name for name in TOLD if name != "bundle"), *COLUMNS]


def main(
    reference: Annotated[
        Path | None, typer.Option(help="parquet file of the like; default: the champion's own")
    ] = None,
    live: Annotated[Path | None, typer.Option(help="parquet file of live rows; default: from Redis")] = None,
    fail_over: Annotated[
        float | None, typer.Option(min=0, max=1, help="exit 1 if a larger share of features drifted")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print drift.json instead of the table")] = False,
) -> int:
    """Compare live answers with what the release met where nothing was wrong; a finding, no failure."""
    params = load("drift", DriftParams)
    if reference is None or live is None:
        with connect() as redis:
            state = control.present(redis)
            rows = _fetch(redis, state, params) if live is None else _parquet(live)
        usual = _parquet(reference or Path(state.champion.path) / REFERENCE.name)
    else:
        rows, usual = _parquet(live), _parquet(reference)
    drift, then, now = compare(usual, rows, params)
    written = write_json(at(DRIFT), drift_json(drift))
    from monitoring.drift.page import write_page, write_picture  # Evidently takes seconds to import

    write_page(drift, then, now, at(PAGE))
    write_picture(drift, at(PICTURE))
    if as_json:
        print(written.decode())
    else:
        _tell(drift)
    return int(fail_over is not None and drift.share > fail_over)


def drift_json(drift: Drift) -> dict[str, Any]:
    """What drift.json holds."""
    columns = [
        asdict(column)
        | {"class": CLASS_OF[column.name], "finding": column.finding, "drifted": column.drifted}
        for column in drift.columns
    ]
    return asdict(drift) | {"share_drifted": drift.share, "columns": columns}


def _compared(release: control.Release) -> tuple[Any, Any]:
    """What two releases must have in common for their answers to be compared with one reference."""
    manifest = release.manifest() or {}
    return manifest.get("files", {}).get(REFERENCE.name), manifest.get("retrieve")


def _fetch(redis: Any, state: control.RolloutState, params: DriftParams) -> pd.DataFrame:
    """The sampled answers of the releases that have the champion's reference and candidates, kept for a later
    look: one that retrieves by other settings has other candidates, and nothing of the shop has moved.
    """
    rows, others = read_served(redis, params.newest_answers)
    for schema, answers in others.items():
        left = (
            f"{SERVED}: {answers:,} answers of feature schema {schema} are left out; ours is {schema_hash()}"
        )
        print(left, file=reader())
    releases = [r for r in (state.champion, state.challenger, state.previous) if r]
    shared = {release.digest: _compared(release) for release in releases}
    alike = [digest for digest, told in shared.items() if told == shared[state.champion.digest]]
    ours = rows["bundle"].isin(alike)
    if left_out := rows.loc[~ours, "request_id"].nunique():
        print(f"{SERVED}: {left_out:,} answers of other releases are left out", file=reader())
    if not ours.any():
        problem = f"holds no answer of release {state.champion.digest} and feature schema {schema_hash()}"
        raise DataError(SERVED, problem, next_step="send the service some requests")
    with whole(at(LIVE)) as draft:
        rows[ours].to_parquet(draft, compression="zstd", index=False)
    return rows[ours]


def _parquet(path: Path) -> pd.DataFrame:
    file = at(path)
    if not file.exists():
        raise DataError(
            path, "not found", next_step="name a file, or run `endcap evaluate` and `endcap bundle`"
        )
    try:
        return pd.read_parquet(file, columns=NEED)
    except (ValueError, OSError) as error:  # pyarrow: a column is missing, the file is truncated
        raise DataError(path, str(error).partition("\n")[0], next_step="write it anew") from error


def _tell(drift: Drift) -> None:
    out = console()
    out.print(
        f"{drift.answers_live:,} live answers of {drift.visits_live:,} visits in {drift.hours:.1f} hours, "
        f"against {drift.answers_reference:,} of the release's own at like places of past visits"
    )
    moved = [column for column in drift.columns if column.drifted]
    unsure = [column.name for column in drift.columns if column.finding == "too few answers"]
    judged = len(drift.columns) - len(unsure)
    out.print(
        f"[bold]{len(moved)} of {judged} columns moved[/]"
        if moved
        else f"[bold]no drift in {judged} columns[/]"
    )
    if moved:
        shown = table(None, ("column", "finding", ">was", ">is", ">distance", ">limit", ">chance"))
        for column in sorted(moved, key=lambda c: c.name):
            shown.add_row(column.name, column.finding, *_numbers(column))
        out.print(shown)
    if unsure:
        out.print(f"too few answers to say: {', '.join(unsure)}")
    if drift.alone:
        out.print(f"{drift.alone:.0%} of the live answers stand at a place without enough like it; left out")
    out.print(f"distributions: {PAGE}, picture: {PICTURE}")


def _numbers(column: ColumnDrift) -> list[str]:
    """was, is, distance, limit and chance of what moved."""
    if column.missing.moved or column.values is None:
        gap, was, now = column.missing, f"{column.missing_then:.0%}", f"{column.missing_now:.0%}"
    else:
        gap = column.values
        form = ".3g" if column.code is None else ".0%"
        was, now = (format(value, form) for value in (column.then or 0.0, column.now or 0.0))
        if column.code is not None:
            was, now = (f"{CATEGORIES[column.name][column.code]} {share}" for share in (was, now))
    return [was, now, *(f"{value:.2f}" for value in (gap.distance, gap.limit, gap.chance))]
