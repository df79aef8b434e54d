"""The ingest job: the active shop's export becomes data/raw; what does not fit becomes data/quarantine."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import typer

from feature_repo import params
from feature_repo.errors import DataError, ParamsError, shorten
from feature_repo.events import ITEM_SCHEMA, SCHEMA
from feature_repo.files import write_parquet
from feature_repo.offline.duck import connect
from feature_repo.persons import privacy
from feature_repo.persons.pseudonyms import Persons
from feature_repo.places import DATA, EVENT_LOG, ITEM_LOG, at
from pipelines.ingest.adapters.adapters import PARTS, Adapter, adapter_of
from pipelines.ingest.adapters.cells import Extract
from pipelines.ingest.landed import BORN, LIVE, as_of, exported_until, landed_events, landed_items
from pipelines.ingest.profile import profile
from pipelines.ingest.quarantine import QUARANTINE, Intake, event_rules, item_rules, learned_rule
from pipelines.ingest.repairs import catalogue_of, keep_known, repairs_of
from pipelines.ingest.report import IngestReport, Output, Part, Reason, draw
from pipelines.ingest.ties import put_in_order

_NEEDED = ("type", "event_ts", "consent")  # of every event, beside its ids


@dataclass(frozen=True)
class IngestParams:
    """Section `ingest` of params.yaml."""

    max_quarantined_share: float
    repairs: dict[str, str]  # field: empty, clamp, quarantine; pipelines/ingest/repairs.py
    returns: str  # skip or quarantine
    latest: datetime
    memory_limit: str
    threads: int
    row_group_rows: int


def main(
    latest: Annotated[
        datetime | None, typer.Option(help="Newest event time accepted, UTC. Default: ingest.latest.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Read the shop's export into data/raw; refused rows go to data/quarantine."""
    shop, constants = params.shop(), params.load("ingest", IngestParams)
    for log in (EVENT_LOG, ITEM_LOG):  # stages depend on them from the start
        at(log).mkdir(parents=True, exist_ok=True)
    params.refuse_stale(shop)
    newest = constants.latest if latest is None else latest.replace(tzinfo=UTC)
    report = ingest(shop.name, adapter_of(shop), at(DATA), constants, newest, privacy.persons())
    print(json.dumps(report.as_dict(), indent=2) if as_json else report.as_text())
    return 0


def ingest(
    shop: str,
    adapter: Adapter,
    data: Path,
    constants: IngestParams,
    latest: datetime,
    persons: Persons | None = None,
) -> IngestReport:
    """Write raw/*.parquet, quarantine/*.parquet and reports/ingest.{json,png} under `data`.

    Ids of shoppers and visits become the pseudonyms of `persons`; who is erased is left out.

    All is written beside its place and moved when it is complete, so a failure leaves earlier files as they
    were. Raises DataError for a file that cannot be read, and when more than `max_quarantined_share` of a
    part is refused: then the quarantine and the report are still written, the raw data is not. What the
    running shop logged (`data`/logs) is a part of its own: pipelines/ingest/landed.py.
    """
    data.mkdir(parents=True, exist_ok=True)
    persons = persons or Persons()
    with TemporaryDirectory(prefix=".ingest-", dir=data) as name, _connection(name, constants) as connection:
        scratch = Path(name)  # on the same file system as `data`: moves from here are atomic
        events, items = _intakes(connection, constants, latest)
        intakes = {"events": events, "impressions": events, "items": items}
        extracts = {part: found for part in PARTS if (found := adapter.extract(part, connection))}
        numbers = {part: events.add(extracts[part]) for part in extracts if part != "items"}
        if live := landed_events(data / EVENT_LOG.relative_to(DATA), connection, events.table):
            extracts[LIVE], intakes[LIVE], numbers[LIVE] = live, events, events.add(live)
        events.refuse_repeats()
        ties = put_in_order(connection, events.table)
        extracts.setdefault("items", catalogue_of(events.table, extracts["events"].source))
        numbers["items"] = items.add(extracts["items"])
        if born := landed_items(data / ITEM_LOG.relative_to(DATA), connection, items.table):
            extracts[BORN], intakes[BORN], numbers[BORN] = born, items, items.add(born)
        items.refuse_repeats()
        for i, repair in enumerate(items.repairs):
            if repair.field == "accessories":
                keep_known(connection, items.table, 1 << i)

        parts, faults = {}, {}
        for part in dict.fromkeys([*PARTS, *numbers]):
            refused = intakes[part].refused(numbers[part]) if part in numbers else QUARANTINE.empty_table()
            refused = persons.refused(refused)
            _write(scratch / "quarantine" / f"{part}.parquet", QUARANTINE, refused.to_reader(), constants)
            if part in numbers:
                parts[part] = Part.count(extracts[part], intakes[part], numbers[part], refused)
                faults[part] = refused
        failure = _too_many_refused(parts, extracts, faults, constants.max_quarantined_share)
        exported = f"(SELECT * FROM {events.table} WHERE part <> {numbers.get(LIVE, -1)})"
        said = exported_until(connection, exported) if live or born else None
        outputs = {} if failure else _write_raw(scratch / "raw", events, items, constants, persons, said)
        holds = None if failure else profile(scratch / "raw")
        report = IngestReport(shop, parts, outputs, ties, holds, accepted=failure is None)
        _write_report(scratch / "reports", report)
        _publish(scratch, data)
    if failure:
        raise failure
    return report


def _intakes(
    connection: duckdb.DuckDBPyConnection, constants: IngestParams, latest: datetime
) -> tuple[Intake, Intake]:
    """Of events and of items. Raises ParamsError for a repair that does not exist."""
    of_events, of_items = [*event_rules(latest), learned_rule(latest)], item_rules(latest)
    known = dict.fromkeys(rule.field for rule in (*of_events, *of_items))
    for name in constants.repairs:
        if name not in known:
            raise ParamsError(f"ingest.repairs.{name}: unknown field; allowed: {', '.join(known)}")
    if constants.returns not in ("skip", "quarantine"):
        raise ParamsError(f"ingest.returns: {constants.returns!r}; allowed: skip, quarantine")
    mended = repairs_of(constants.repairs, of_events, ("event_id", "session_id", "item_id", *_NEEDED))
    events = Intake(connection, SCHEMA, "event_id", of_events, mended, constants.returns == "skip")
    mended = repairs_of(constants.repairs, of_items, ("item_id",))
    return events, Intake(connection, ITEM_SCHEMA, "item_id", of_items, mended)


def _write_raw(
    folder: Path,
    events: Intake,
    items: Intake,
    constants: IngestParams,
    persons: Persons,
    said: datetime | None,
) -> dict[str, Output]:
    """The three canonical files. The type of an event decides its file, whichever file it came from.

    `said`: when the export's catalogue was made, where events of the running shop are newer.
    """
    outputs, batch = {}, constants.row_group_rows
    for name, where in (("events", "type <> 'impression'"), ("impressions", "type = 'impression'")):
        rows = events.accepted("event_ts, part, file, source_row", batch, where)
        tables = (persons.table(table) for table in _tables(rows, SCHEMA))
        schema = SCHEMA.with_metadata({privacy.PRINT: persons.print})
        count = write_parquet(folder / f"{name}.parquet", schema, tables, constants.row_group_rows)
        outputs[name] = Output.of(count, events.types(where))
    shape = as_of(ITEM_SCHEMA, said) if said else ITEM_SCHEMA
    count = _write(folder / "items.parquet", shape, items.accepted("item_id", batch), constants)
    return outputs | {"items": Output.of(count, [])}


def _write(path: Path, schema: pa.Schema, rows: pa.RecordBatchReader, constants: IngestParams) -> int:
    """One parquet file of `schema`: fixed row groups, hence the same bytes for the same rows; how many."""
    return write_parquet(path, schema, _tables(rows, schema), constants.row_group_rows)


def _tables(rows: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]).cast(schema) for batch in rows)


def _too_many_refused(
    parts: Mapping[str, Part], extracts: Mapping[str, Extract], faults: Mapping[str, pa.Table], limit: float
) -> DataError | None:
    for name, part in parts.items():
        if part.quarantined > limit * part.rows_in:
            top, found = part.reasons[0], part.quarantined
            problem = (
                f"{found} rows are quarantined ({found / part.rows_in:.2%}, allowed "
                f"ingest.max_quarantined_share = {limit:.2%}), "
                f"most of them ({top.rows}) for {top.field}: {top.reason}; {_example(faults[name], top)}"
            )
            step = f"look at data/quarantine/{name}.parquet; then correct the export, {_switch(top.field)}"
            return DataError(extracts[name].source, problem, rows=part.rows_in, next_step=step)
    return None


def _example(refused: pa.Table, why: Reason) -> str:
    """Place and value of the first row that was refused so."""
    rows = refused.filter((pc.field("field") == why.field) & (pc.field("reason") == why.reason))
    first = rows.slice(0, 1).to_pylist()[0]
    place = f"row {first['row']}" if first["line"] is None else f"line {first['line']}"
    return f"the first is {place} of {first['source']}: {shorten(first['value'])}"


def _switch(field: str) -> str:
    """What of the mapping or of params.yaml bears on a field that many rows fail at."""
    of_instants = "or set timezone, time_format or epoch in its mapping"
    switches = {
        "row": "or delimiter or encoding in its mapping",
        "type": "name the words under types in its mapping, or set other_types: skip",
        "event_ts": of_instants,
        "created_ts": of_instants,
        "available_from": of_instants,
        "event_id": "or leave event_id out of its mapping",
    }
    needed = ("session_id", "item_id", "consent")
    mapped = "or its mapping (a default, decimal)"
    other = mapped if field in needed else f"{mapped}, or set ingest.repairs.{field} in params.yaml"
    return f"{switches.get(field, other)}; or raise the limit"


def _write_report(folder: Path, report: IngestReport) -> None:
    folder.mkdir()
    (folder / "ingest.json").write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    draw(report, folder / "ingest.png")


def _connection(folder: str, constants: IngestParams) -> duckdb.DuckDBPyConnection:
    """DuckDB with a bounded memory that spills into `folder`, beside the data."""
    return connect(
        memory_limit=constants.memory_limit,
        threads=constants.threads,
        temp_directory=f"{folder}/spill",
        preserve_insertion_order=False,  # every query that needs an order states it
    )


def _publish(scratch: Path, data: Path) -> None:
    """Move every finished file to its place; each move is atomic."""
    for folder in ("quarantine", "raw", "reports"):
        for path in sorted((scratch / folder).glob("*")):
            (data / folder).mkdir(exist_ok=True)
            path.replace(data / folder / path.name)
