"""`endcap feature`: what is declared, and one feature's value as training and as serving see it."""

from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from feature_repo.assemble.crosses import CROSSES, STANDINGS
from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.reference import markdown
from feature_repo.assemble.vectorize import COLUMNS, REQUEST
from feature_repo.assemble.visitor import Visitor
from feature_repo.clock import instant
from feature_repo.errors import EndcapError, ParamsError
from feature_repo.features.catalogue import DECLARED, ITEM_CATALOGUE
from feature_repo.features.stored import FOLDS, ITEM_ACTIVITY
from feature_repo.folds.fold import Column, Fold, Reading
from feature_repo.offline.timeline import historical
from feature_repo.online.changes import applied_ts
from feature_repo.online.connection import connect
from feature_repo.online.rows import OnlineView
from feature_repo.persons.privacy import persons
from feature_repo.terminal import console, table
from pipelines.parity.culprits import equal

SERVICES = {"user_id": "visitor", "session_id": "visitor", "item_id": "items"}


def main(
    name: Annotated[str | None, typer.Argument(help="A stored column, or one of the ranker's.")] = None,
    entity: Annotated[str | None, typer.Argument(help="A user_id, session_id or item_id.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The table of docs/features.md.")] = False,
) -> int:
    """List the features, or show one's value for one entity, offline beside online."""
    if as_markdown:
        print(markdown())
    elif name is None:
        console().print(listing())
    else:
        return show(console(), name, entity)
    return 0


def listing() -> Table:
    """Every stored column with its unit and the ranker's column made of it."""
    shown = table(None, ("view", "stored", "type", "unit", "ranker", "meaning"))
    for declared in DECLARED:
        for column in declared.columns:
            made = [r.column for r in declared.readings if r.of[:1] == (column.name,)]
            shown.add_row(declared.name, column.name, column.dtype, column.unit, ", ".join(made), column.doc)
        shown.add_section()
    return shown


def show(out: Console, name: str, entity: str | None) -> int:
    """Print one feature; with `entity` its values on both sides, exit code 1 where they differ."""
    asked = [reading for reading in (*REQUEST, *CROSSES, *STANDINGS) if reading.column == name]
    of_views = [
        (view, columns, readings)
        for view in DECLARED
        for columns in [[c for c in view.columns if c.name == name]]
        for readings in [[r for r in view.readings if name in (r.column, *r.of[:1])]]
        if columns or readings
    ]
    if not asked and not of_views:
        known = sorted({*COLUMNS, *(c.name for d in DECLARED for c in d.columns)})
        raise ParamsError(f"feature: {name!r} is not declared; allowed: {', '.join(known)}")
    different = False
    for view, columns, readings in of_views:
        out.print(f"{view.name}: {view.doc} Key {view.key}.")
        for column in columns:
            out.print(f"  stored   {column.name} ({column.dtype}, {column.unit}): {column.doc}")
        for reading in readings:
            out.print(f"  ranker   {reading.column} ({reading.unit}): {reading.doc}")
        if entity is not None:
            key = entity if view.key == "item_id" else persons().of(entity)
            different |= _compared(out, view, columns, readings, key)
    for reading in asked:
        out.print(f"ranker   {name} ({reading.unit}): {reading.doc}, when it is asked for")
        if entity is not None:
            raise ParamsError(
                f"entity: {entity!r} is not allowed for {name}, which belongs to a request; allowed: "
                "none. Next: `endcap replay` compares its values on both sides"
            )
    return int(different)


def _compared(out: Console, view: Fold, columns: list[Column], readings: list[Reading], entity: str) -> bool:
    """Print the entity's values on both sides; True where one differs."""
    now = clock()
    rows = stored(view, entity, now), live(view, entity, now)
    shown = table(None, (f"{entity} at {instant(now):%Y-%m-%d %H:%M:%S}", "offline", "online"))
    pairs: list[Any] = [(c.name, *(row and row[c.name] for row in rows)) for c in columns]
    pairs += [(r.column, *(value(view, r, row, now) for row in rows)) for r in readings]
    different = False
    for label, one, other in pairs:
        same = equal(one, other, share=1e-6, least=1e-9)
        different |= not same
        shown.add_row(label, _told(one), _told(other) if same else f"[red]{_told(other)}[/red]")
    out.print(shown)
    return different


def clock() -> int:
    """The instant up to which the online features know the shop, us."""
    with connect() as redis:
        if now := applied_ts(redis):
            return now
    raise EndcapError(
        "feature: there are no online features; run `endcap up redis`, then `endcap materialize`"
    )


def stored(declared: Fold, entity: str, now: int) -> dict[str, Any] | None:
    """The offline row as of `now`, through Feast, as training reads it."""
    service = SERVICES[declared.key]
    keys = [key for key, of in SERVICES.items() if of == service]
    asked = {key: [entity if key == declared.key else None] for key in keys}
    answers = historical(pd.DataFrame({**asked, "event_timestamp": [instant(now)]}), service)
    row: dict[str, Any] | None = answers[declared.name][0]
    return row


def live(declared: Fold, entity: str, now: int) -> dict[str, Any] | None:
    """The online row, as serving reads it: none where it is too old at `now`."""
    view = OnlineView(declared)
    with connect() as redis:
        found = view.fresh(redis.hmget(view.key(entity), view.fields), now)
    return found[1] if found else None


def value(declared: Fold, reading: Reading, row: dict[str, Any] | None, now: int) -> float:
    """What the ranker gets of `row`."""
    if declared.key == "item_id":
        matrix = item_matrix(declared, row)
        return float(reading.read(matrix, now, np.zeros(1, np.int64))[0])
    fold = next(fold for fold in FOLDS if fold.name == declared.name)
    return float(reading.read(row or fold.row(fold.new()), Visitor(now, "", None)))


def item_matrix(declared: Fold, row: dict[str, Any] | None) -> ItemMatrix:
    """A catalogue of one item that has only this row."""
    catalogue = row if declared is ITEM_CATALOGUE and row else {c.name: None for c in ITEM_CATALOGUE.columns}
    matrix = ItemMatrix(["one"], {name: [held] for name, held in catalogue.items()})
    if declared is ITEM_ACTIVITY and row:
        matrix.apply(np.zeros(1, np.int64), {c.name: [row[c.name]] for c in ITEM_ACTIVITY.columns})
    return matrix


def _told(held: Any) -> str:
    return f"{held:.6g}" if isinstance(held, float) else "-" if held is None else str(held)
