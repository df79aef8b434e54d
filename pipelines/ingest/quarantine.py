"""The batch import's door: the rules of feature_repo.events.check_event as SQL, and what happens to a
refused row.

A refused row is kept with its file, row number, line, first wrong field, value and reason. An optional field
may be mended instead (params.yaml, ingest.repairs), and rows that are no events are passed over; both are
counted. Rows in equals rows accepted plus rows in quarantine plus rows passed over, always.
"""

from collections.abc import Sequence
from datetime import datetime

import duckdb
import pyarrow as pa

from feature_repo import events
from feature_repo.errors import DataError
from feature_repo.features.item_check import (
    CURRENCY,
    ITEM_NUMBERS,
    ITEM_TEXTS,
    MAX_DESCRIPTION,
    MAX_STOCK,
    MAX_TAG,
    MAX_TAGS,
    TAG,
)
from feature_repo.vocabulary.trackers import RETURN
from pipelines.ingest.adapters.cells import READABLE, WIDE, Extract, kind_of, literal, quoted
from pipelines.ingest.repairs import SKIPS, Repair, Rule

QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # file name
        pa.field("row", pa.int64(), nullable=False),  # in that file, from 1; a header is not counted
        pa.field("line", pa.int64()),  # where it begins, from 1 with the header; null for parquet
        pa.field("field", pa.string(), nullable=False),  # the first wrong one; "row" for a whole line
        pa.field("value", pa.string()),  # as text
        pa.field("reason", pa.string(), nullable=False),
    ]
)
_CONTROL = r"[\x00-\x1f\x7f-\x{9f}]"  # RE2 has no two-digit escape above 7f


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


def learned_rule(latest: datetime) -> Rule:
    """The limits of event_ts for created_ts, which an export has and the live endpoint sets itself."""
    return _between_instants("created_ts", latest)


def item_rules(latest: datetime) -> list[Rule]:
    """check_item, rule by rule; an item_id must fit the events that name it."""
    most = MAX_DESCRIPTION
    return [
        _text("item_id", 256, "a string", needed=True),
        *(_text(name, limit, "text", needed=name == "title") for name, limit in ITEM_TEXTS.items()),
        Rule("description", f"length(description) > {most}", f"text of at most {most} characters"),
        *(_number(name, limit) for name, limit in ITEM_NUMBERS.items()),
        Rule(
            "currency",
            f"NOT regexp_full_match(currency, '{CURRENCY}')",
            "three capital letters (ISO 4217)",
        ),
        _whole("stock", 0, MAX_STOCK),
        Rule("accessories", "len(list_filter(accessories, lambda id: id IS NULL)) > 0", "a list of texts"),
        _words("tags"),
        _between_instants("available_from", latest),
    ]


def _text(name: str, limit: int, what: str, *, needed: bool = False) -> Rule:
    fits = f"length({name}) BETWEEN 1 AND {limit} AND NOT regexp_matches({name}, '{_CONTROL}')"
    broken = f"NOT coalesce({fits}, {'false' if needed else 'true'})"
    return Rule(name, broken, f"{what} of 1 to {limit} characters without control characters")


def _words(name: str) -> Rule:
    fits = f"length(word) BETWEEN 1 AND {MAX_TAG} AND NOT regexp_matches(word, '{_CONTROL}')"
    odd = f"list_filter({name}, lambda word: NOT coalesce({fits}, false))"
    return Rule(name, f"len({name}) > {MAX_TAGS} OR len({odd}) > 0", f"a list of at most {MAX_TAGS} {TAG}")


def _whole(name: str, low: int, high: int) -> Rule:
    broken = f"{name} NOT BETWEEN {low} AND {high} OR {name} <> trunc({name})"
    return Rule(name, broken, f"a whole number from {low} to {high}", (low, high))


def _number(name: str, high: float) -> Rule:
    broken = f"NOT (isfinite({name}) AND {name} BETWEEN 0 AND {high:.0f})"
    return Rule(name, broken, f"a finite number from 0 to {high:.0f}", (0, high))


def _between_instants(name: str, latest: datetime) -> Rule:
    span = [instant.isoformat() for instant in (events.EARLIEST, latest)]
    broken = f"{name} NOT BETWEEN TIMESTAMPTZ '{span[0]}' AND TIMESTAMPTZ '{span[1]}'"
    return Rule(name, broken, f"in {span[0]} to {span[1]}")


class Intake:
    """Extracts of one schema in a DuckDB table: add them, then read what is `accepted` and `refused`.

    `key` must be unique over all extracts: the first accepted row keeps it, in the order of adding, of files
    and of rows. `repairs` mend optional fields before the rules judge a row.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        schema: pa.Schema,
        key: str,
        rules: Sequence[Rule],
        repairs: Sequence[Repair] = (),
        skip_returns: bool = False,
    ) -> None:
        self._connection, self._schema, self.repairs = connection, schema, list(repairs)
        self.table, self._key, self._skip_returns = quoted(f"intake by {key}"), quoted(key), skip_returns
        self._kinds = {field.name: kind_of(field) for field in schema}
        unreadable = [Rule(name, f"unread_field = '{name}'", READABLE[k]) for name, k in self._kinds.items()]
        whole_row = Rule("row", "unread_field = 'row'", "a line with as many cells as the header")
        repeat = Rule(key, "false", f"the first row with this {key}")
        self._rules = [whole_row, *SKIPS, *unreadable, *rules, repeat]
        self._extracts: list[Extract] = []
        columns = ", ".join(f"{quoted(name)} {WIDE[kind]}" for name, kind in self._kinds.items())
        connection.execute(
            f"CREATE TABLE {self.table} (part UTINYINT, file INTEGER, source_row BIGINT, line INTEGER, "
            f"rule UTINYINT, mended BIGINT, unread_value VARCHAR, unread_reason VARCHAR, {columns})"
        )

    def add(self, extract: Extract) -> int:
        """Read the extract, judge each row and give its part number. Raises DataError if it is unreadable."""
        part = len(self._extracts)
        broken = [rule.broken for rule in self._rules]
        first_broken = " ".join(f"WHEN {condition} THEN {i}" for i, condition in enumerate(broken))
        columns = ", ".join(quoted(name) for name in self._schema.names)
        mended = " + ".join(
            f"CASE WHEN {r.broken} THEN {1 << i} ELSE 0 END" for i, r in enumerate(self.repairs)
        )
        replaced = ", ".join(f"{repair.value} AS {quoted(repair.field)}" for repair in self.repairs)
        try:
            self._connection.execute(
                f"""INSERT INTO {self.table}
                SELECT {part}, file, source_row, line, CASE {first_broken} END, mended, unread_value,
                unread_reason, {columns} FROM (
                    SELECT * {f"REPLACE ({replaced})" if replaced else ""}, {mended or 0} AS mended,
                    {self._passed_over(extract)} AS skip FROM ({extract.query}))"""
            )
        except duckdb.OutOfMemoryException as error:
            step = "raise ingest.memory_limit in params.yaml, or free disk space for what is spilled"
            raise DataError(extract.source, str(error).splitlines()[0], next_step=step) from error
        except duckdb.Error as error:
            problem = f"cannot be read to its end: {str(error).splitlines()[0]}"
            raise DataError(extract.source, problem, next_step="export it again") from error
        self._extracts.append(extract)
        return part

    def _passed_over(self, extract: Extract) -> str:
        """SQL of the rule's field by which a row is no event of ours, else null."""
        if "type" not in self._kinds:
            return "NULL"
        returned = f"type = '{RETURN}' OR (type = 'purchase_completed' AND quantity < 0)"
        known = ", ".join(map(literal, (*events.TYPES, RETURN)))
        cases = [f"WHEN {returned} THEN 'return'"] if self._skip_returns else []
        cases += [f"WHEN type NOT IN ({known}) THEN 'other'"] if extract.skip_other_types else []
        return f"CASE {' '.join(cases)} END" if cases else "NULL"

    def refuse_repeats(self) -> None:
        """Refuse all but the first of the rows that share a key; call once, after the last `add`."""
        self._connection.execute(
            f"""UPDATE {self.table} SET rule = {len(self._rules) - 1}
            FROM (
                SELECT part AS p, file AS f, source_row AS r FROM {self.table}
                WHERE rule IS NULL AND {self._key} IN (
                    SELECT {self._key} FROM {self.table} WHERE rule IS NULL GROUP BY 1 HAVING count(*) > 1
                )
                QUALIFY row_number() OVER (PARTITION BY {self._key} ORDER BY part, file, source_row) > 1
            ) WHERE part = p AND file = f AND source_row = r"""
        )

    def accepted(self, order: str, batch_rows: int, where: str = "true") -> pa.RecordBatchReader:
        """Accepted rows in wide types, sorted by the SQL list `order`."""
        columns = ", ".join(quoted(name) for name in self._schema.names)
        query = f"SELECT {columns} FROM {self.table} WHERE rule IS NULL AND {where} ORDER BY {order}"
        return self._connection.sql(query).to_arrow_reader(batch_rows)

    def refused(self, part: int) -> pa.Table:
        """Rows of one extract that were refused, as QUARANTINE, in row order."""
        texts = " ".join(f"WHEN '{name}' THEN {_as_text(name, kind)}" for name, kind in self._kinds.items())
        rules = self._named_rules([rule for rule in self._rules if rule not in SKIPS])
        files = ", ".join(f"({i}, {literal(name)})" for i, name in enumerate(self._extracts[part].files))
        found = self._connection.sql(
            f"""SELECT name AS source, source_row AS row, line, field,
            coalesce(unread_value, CASE field {texts} END) AS value, coalesce(unread_reason, reason) AS reason
            FROM {self.table} JOIN (VALUES {rules}) AS rules (rule, field, reason) USING (rule)
            JOIN (VALUES {files}) AS files (file, name) USING (file)
            WHERE part = {part} ORDER BY file, source_row"""
        )
        return found.to_arrow_table().cast(QUARANTINE)

    def skipped(self, part: int) -> list[tuple[str, str, int]]:
        """Rows of one extract that were passed over: (field, why, how many)."""
        query = f"""SELECT field, reason, count(*) FROM {self.table}
            JOIN (VALUES {self._named_rules(SKIPS)}) AS rules (rule, field, reason) USING (rule)
            WHERE part = {part} GROUP BY ALL ORDER BY ALL"""
        return self._connection.execute(query).fetchall()

    def repaired(self, part: int) -> list[tuple[str, str, int]]:
        """Accepted rows of one extract whose field was mended: (field, what was done, how many)."""
        counts = [f"count(*) FILTER ((mended & {1 << i}) <> 0)" for i in range(len(self.repairs))]
        counted = ", ".join(counts) or "count(*)"
        query = f"SELECT {counted} FROM {self.table} WHERE rule IS NULL AND part = {part}"
        (found,) = self._connection.execute(query).fetchall()
        return [(r.field, r.told, n) for r, n in zip(self.repairs, found, strict=False) if n]

    def rows(self, part: int) -> tuple[int, int]:
        """Rows of one extract: (read, accepted)."""
        query = f"SELECT count(*), count(*) FILTER (rule IS NULL) FROM {self.table} WHERE part = {part}"
        ((read, accepted),) = self._connection.execute(query).fetchall()
        return read, accepted

    def types(self, where: str) -> list[tuple[str, int, datetime, datetime]]:
        """Accepted events by type: (type, how many, the first's and the last's time)."""
        query = f"""SELECT type, count(*), min(event_ts), max(event_ts) FROM {self.table}
            WHERE rule IS NULL AND {where} GROUP BY type ORDER BY type"""
        return self._connection.execute(query).fetchall()

    def _named_rules(self, rules: Sequence[Rule]) -> str:
        """SQL rows (number, field, reason)."""
        named = [(self._rules.index(rule), rule) for rule in rules]
        return ", ".join(f"({i}, {literal(rule.field)}, {literal(rule.reason)})" for i, rule in named)


def _as_text(name: str, kind: str) -> str:
    column = quoted(name)
    if kind != "whole":
        return f"CAST({column} AS VARCHAR)"
    small = f"{column} = trunc({column}) AND abs({column}) < 1e15"
    return (
        f"CASE WHEN {small} THEN CAST(CAST({column} AS BIGINT) AS VARCHAR) ELSE CAST({column} AS VARCHAR) END"
    )
