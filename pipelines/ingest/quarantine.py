"""The batch import's door: the rules of feature_repo.events.check_event as SQL, and what happens to a
refused row.

A refused row is kept with its file, row number, first wrong field, value and reason. Rows in equals rows
accepted plus rows in quarantine, always.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from feature_repo import events
from feature_repo.errors import DataError
from pipelines.ingest.cells import READABLE, WIDE, Extract, kind_of, literal, quoted

QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # file name
        pa.field("row", pa.int64(), nullable=False),  # in that file, from 1; a CSV's header is not counted
        pa.field("field", pa.string(), nullable=False),  # the first wrong one; "row" for a whole line
        pa.field("value", pa.string()),  # as text
        pa.field("reason", pa.string(), nullable=False),
    ]
)
_CONTROL = r"[\x00-\x1f\x7f-\x{9f}]"  # RE2 has no two-digit escape above 7f
_MAX_TITLE = 1_000
_MAX_DESCRIPTION = 100_000
_MAX_STOCK = 2**31 - 1


@dataclass(frozen=True)
class Rule:
    """`field` is refused where the SQL condition `broken` is true; it should have been `allowed`."""

    field: str
    broken: str
    allowed: str

    @property
    def reason(self) -> str:
        return f"not {self.allowed}"


def event_rules(latest: datetime) -> list[Rule]:
    """check_event, rule by rule in the same order; the first that is broken names the field."""
    needed = ("event_id", "session_id")
    types, itemless = (", ".join(map(literal, names)) for names in (events.TYPES, events.ITEMLESS_TYPES))
    but = " and ".join(events.ITEMLESS_TYPES)
    return [
        *(_text(name, 256, "a string", needed=name in needed) for name in events.ID_FIELDS),
        Rule("type", f"type IS NULL OR type NOT IN ({types})", f"one of {', '.join(events.TYPES)}"),
        Rule(
            "item_id",
            f"item_id IS NULL AND type NOT IN ({itemless})",
            f"an item, which every type but {but} needs",
        ),
        Rule("event_ts", "event_ts IS NULL", READABLE["instant"]),
        _between_instants("event_ts", latest),
        *(_text(name, 256, "text") for name in events.TEXT_FIELDS),
        *(_whole(name, low, high) for name, (low, high) in events.COUNT_FIELDS.items()),
        _number("price", events.MAX_PRICE),
        Rule("consent", "consent IS NULL", "true or false"),
    ]


def item_rules(latest: datetime) -> list[Rule]:
    """The same limits for the catalogue: an item_id must fit the events that name it."""
    return [
        _text("item_id", 256, "a string", needed=True),
        _text("title", _MAX_TITLE, "text", needed=True),
        Rule(
            "description",
            f"length(description) > {_MAX_DESCRIPTION}",
            f"text of at most {_MAX_DESCRIPTION} characters",
        ),
        *(_text(name, _MAX_TITLE, "text") for name in ("category_path", "image_path")),
        *(_text(name, 256, "text") for name in ("brand", "gtin")),
        _number("price", events.MAX_PRICE),
        Rule("currency", "NOT regexp_full_match(currency, '[A-Z]{3}')", "three capital letters (ISO 4217)"),
        _number("margin", 1),
        _whole("stock", 0, _MAX_STOCK),
        _between_instants("available_from", latest),
    ]


def _text(name: str, limit: int, what: str, *, needed: bool = False) -> Rule:
    fits = f"length({name}) BETWEEN 1 AND {limit} AND NOT regexp_matches({name}, '{_CONTROL}')"
    broken = f"NOT coalesce({fits}, {'false' if needed else 'true'})"
    return Rule(name, broken, f"{what} of 1 to {limit} characters without control characters")


def _whole(name: str, low: int, high: int) -> Rule:
    return Rule(name, f"{name} NOT BETWEEN {low} AND {high}", f"a whole number from {low} to {high}")


def _number(name: str, high: float) -> Rule:
    broken = f"NOT (isfinite({name}) AND {name} BETWEEN 0 AND {high:.0f})"
    return Rule(name, broken, f"a finite number from 0 to {high:.0f}")


def _between_instants(name: str, latest: datetime) -> Rule:
    span = [instant.isoformat() for instant in (events.EARLIEST, latest)]
    broken = f"{name} NOT BETWEEN TIMESTAMPTZ '{span[0]}' AND TIMESTAMPTZ '{span[1]}'"
    return Rule(name, broken, f"in {span[0]} to {span[1]}")


class Intake:
    """Extracts of one schema in a DuckDB table: add them, then read what is `accepted` and `refused`.

    `key` must be unique over all extracts: the first accepted row keeps it, in the order of adding and of
    rows.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, schema: pa.Schema, key: str, rules: Sequence[Rule]
    ) -> None:
        self._connection, self._schema = connection, schema
        self._table, self._repeats = quoted(f"intake by {key}"), quoted(f"repeats by {key}")
        self._key = quoted(key)
        kinds = {field.name: kind_of(field) for field in schema}
        unreadable = [Rule(name, f"unread_field = '{name}'", READABLE[kind]) for name, kind in kinds.items()]
        whole_row = Rule("row", "unread_field = 'row'", "a line with as many cells as the header")
        repeat = Rule(key, "false", f"the first row with this {key}")
        self._rules = [whole_row, *unreadable, *rules, repeat]
        self._sources: list[str] = []
        columns = ", ".join(f"{quoted(name)} {WIDE[kind]}" for name, kind in kinds.items())
        connection.execute(
            f"CREATE TABLE {self._table} "
            f"(part INTEGER, source_row BIGINT, rule INTEGER, unread_value VARCHAR, {columns})"
        )

    def add(self, extract: Extract) -> int:
        """Read the extract, judge each row and give its part number. Raises DataError if it is unreadable."""
        part = len(self._sources)
        first_broken = " ".join(f"WHEN {rule.broken} THEN {i}" for i, rule in enumerate(self._rules))
        columns = ", ".join(quoted(name) for name in self._schema.names)
        try:
            self._connection.execute(
                f"INSERT INTO {self._table} "
                f"SELECT {part}, source_row, CASE {first_broken} END, unread_value, {columns} "
                f"FROM ({extract.query})"
            )
        except duckdb.OutOfMemoryException as error:
            step = "raise ingest.memory_limit in params.yaml, or free disk space for what is spilled"
            raise DataError(extract.source, str(error).splitlines()[0], next_step=step) from error
        except duckdb.Error as error:
            problem = f"cannot be read to its end: {str(error).splitlines()[0]}"
            raise DataError(extract.source, problem, next_step="export it again") from error
        self._sources.append(extract.source.name)
        return part

    def refuse_repeats(self) -> None:
        """Refuse all but the first of the rows that share a key; call once, after the last `add`."""
        self._connection.execute(
            f"""UPDATE {self._table} SET rule = {len(self._rules) - 1}
            FROM (
                SELECT part AS p, source_row AS r FROM {self._table}
                WHERE rule IS NULL AND {self._key} IN (
                    SELECT {self._key} FROM {self._table} WHERE rule IS NULL GROUP BY 1 HAVING count(*) > 1
                )
                QUALIFY row_number() OVER (PARTITION BY {self._key} ORDER BY part, source_row) > 1
            ) WHERE part = p AND source_row = r"""
        )

    def accepted(self, order: str, batch_rows: int, where: str = "true") -> pa.RecordBatchReader:
        """Accepted rows in wide types, sorted by the SQL list `order`."""
        columns = ", ".join(quoted(name) for name in self._schema.names)
        query = f"SELECT {columns} FROM {self._table} WHERE rule IS NULL AND {where} ORDER BY {order}"
        return self._connection.sql(query).to_arrow_reader(batch_rows)

    def refused(self, part: int) -> pa.Table:
        """Rows of one extract that were refused, as QUARANTINE, in row order."""
        texts = " ".join(f"WHEN '{name}' THEN CAST({quoted(name)} AS VARCHAR)" for name in self._schema.names)
        rules = ", ".join(
            f"({i}, {literal(rule.field)}, {literal(rule.reason)})" for i, rule in enumerate(self._rules)
        )
        found = self._connection.sql(
            f"""SELECT {literal(self._sources[part])} AS source, source_row AS row, field,
            coalesce(unread_value, CASE field {texts} END) AS value, reason
            FROM {self._table} JOIN (VALUES {rules}) AS rules (rule, field, reason) USING (rule)
            WHERE part = {part} ORDER BY source_row"""
        )
        return found.to_arrow_table().cast(QUARANTINE)

    def rows(self, part: int) -> tuple[int, int]:
        """Rows of one extract: (read, accepted)."""
        query = f"SELECT count(*), count(*) FILTER (rule IS NULL) FROM {self._table} WHERE part = {part}"
        ((read, accepted),) = self._connection.execute(query).fetchall()
        return read, accepted

    def types(self, where: str) -> list[tuple[str, int, datetime, datetime]]:
        """Accepted events by type, which comes first leads: (type, how many, the first's and last's time)."""
        query = f"""SELECT type, count(*), min(event_ts), max(event_ts) FROM {self._table}
            WHERE rule IS NULL AND {where} GROUP BY type ORDER BY min((event_ts, event_id))"""
        return self._connection.execute(query).fetchall()
