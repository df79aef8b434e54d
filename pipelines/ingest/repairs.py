"""What an import does about a field that is wrong while its row is not: the switches of `ingest.repairs`.

A product is not dropped for a stock of -1, nor a purchase for the price NaN: an optional field outside its
limits is emptied or clamped, with a count in the report. What identifies a row is never mended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from feature_repo.errors import ParamsError
from feature_repo.events import ITEM_SCHEMA
from pipelines.ingest.adapters.cells import NO_FAULT, Extract, quoted


@dataclass(frozen=True)
class Rule:
    """`field` is refused where the SQL condition `broken` is true; it should have been `allowed`."""

    field: str
    broken: str
    allowed: str
    limits: tuple[float, float] | None = None  # of a number

    @property
    def reason(self) -> str:
        return f"not {self.allowed}"


SKIPS = (
    Rule("type", "skip = 'return'", "counted as a purchase: a return"),
    Rule("type", "skip = 'other'", "a type that the mapping names"),
)
"""Rows that are passed over with a count: no events of ours, and no faults."""


@dataclass(frozen=True)
class Repair:
    """Where `broken`, `field` becomes `value`; the reader is `told` so."""

    field: str
    broken: str
    value: str
    told: str


BY_CATALOGUE = {
    "title": (
        "item_id",
        Repair(
            "title",
            "title IS NULL OR trim(title) = ''",
            "coalesce(nullif(trim(title), ''), item_id)",
            "the item's id: there is no title",
        ),
    ),
    "accessories": (
        "known",
        Repair("accessories", "false", "accessories", "without those that are no product of the catalogue"),
    ),
}
"""Field -> its own action, and the repair; accessories are mended by `keep_known`, once all are there."""


def repairs_of(actions: Mapping[str, str], rules: Sequence[Rule], fixed: Sequence[str]) -> list[Repair]:
    """One for each field of `rules` that `actions` (section ingest.repairs) names with empty or clamp.

    Raises ParamsError for an action that its field does not have; `fixed` fields have none but quarantine.
    """
    repairs = []
    for field, action in actions.items():
        limits = [rule for rule in rules if rule.field == field]
        allowed = {"quarantine"} if field in fixed else {"quarantine", "empty"}
        allowed |= {"clamp"} if any(rule.limits for rule in limits) else set()
        if field in BY_CATALOGUE:
            allowed = {"quarantine", BY_CATALOGUE[field][0]}
        if limits and action not in allowed:
            raise ParamsError(f"ingest.repairs.{field}: {action!r}; allowed: {', '.join(sorted(allowed))}")
        if limits and field in BY_CATALOGUE and action != "quarantine":
            repairs.append(BY_CATALOGUE[field][1])
        elif limits and action != "quarantine":
            broken = " OR ".join(f"({rule.broken})" for rule in limits)
            told = f"{'clamped' if action == 'clamp' else 'emptied'}: not {limits[0].allowed}"
            repairs.append(Repair(field, broken, _mended(field, action, broken, limits), told))
    return repairs


def _mended(field: str, action: str, broken: str, rules: Sequence[Rule]) -> str:
    column, value = quoted(field), "NULL"
    for low, high in (rule.limits for rule in rules if rule.limits and action == "clamp"):
        clamped = f"greatest({low}, least({high:.0f}, {column}))"
        value = f"CASE WHEN isfinite({column}) AND {clamped} = trunc({clamped}) THEN {clamped} END"
    if field == "created_ts":
        value = "event_ts"  # what nobody recorded was learned when it happened
    return f"CASE WHEN {broken} THEN {value} ELSE {column} END"


def keep_known(connection: duckdb.DuckDBPyConnection, table: str, bit: int) -> None:
    """Take ids that are no accepted item out of the accessories of the items in `table`; marks the rows."""
    connection.execute(
        f"""UPDATE {table} SET mended = mended | {bit}, accessories = known FROM (
            SELECT item_id AS owner, list(id ORDER BY place) FILTER (id IN (
                SELECT item_id FROM {table} WHERE rule IS NULL)) AS known, count(*) AS given
            FROM (SELECT item_id, unnest(accessories) AS id, generate_subscripts(accessories, 1) AS place
                  FROM {table} WHERE rule IS NULL)
            GROUP BY item_id
        ) WHERE item_id = owner AND rule IS NULL AND len(coalesce(known, [])) < given"""
    )


def catalogue_of(events: str, source: Path) -> Extract:
    """Items of the accepted events in the table `events`, each with its id as title."""
    names = {"item_id": "item_id", "title": "item_id"}
    fields = ", ".join(f"{names.get(name, 'NULL')} AS {name}" for name in ITEM_SCHEMA.names)
    query = f"""SELECT 0 AS file, row_number() OVER (ORDER BY item_id) AS source_row, NULL AS line,
        {NO_FAULT}, {fields} FROM (
            SELECT DISTINCT item_id FROM {events} WHERE rule IS NULL AND item_id IS NOT NULL)"""
    return Extract(source, 0, query, told=("the export has no items: made of the events', titles are ids",))
