"""Events of one instant get an order in time: that of the export.

A query of the protocol stands just after an event, and every stored row is of an instant: two contacts of one
instant would know each other, and a model would be asked for what it has been told (times cut off at the day:
NDCG@12 .44 -> .78). So each event has an instant of its own, microseconds after the one it shares:

    exported   12:00:00 view A   12:00:00 view B   12:00:00 impressions     12:00:01 cart A
    in raw     12:00:00.000000   12:00:00.000001   12:00:00.000002 (all)    12:00:01.000000

Impressions come last: nobody knows what of a page had been shown before the contact. Those of one instant
stay together, they are a page.
"""

from dataclasses import dataclass

import duckdb

from feature_repo.events import PRODUCT_TYPES

UNITS = {"days": 86_400_000_000, "hours": 3_600_000_000, "minutes": 60_000_000, "seconds": 1_000_000}
COARSE = 0.5  # share of contacts without an order in time, from which the clock is told to hide the visit


@dataclass(frozen=True)
class Ties:
    """How well the export's clock tells the contacts of a visit apart.

    `contacts` with products in visits of two items or more; `tied`: those that share their instant with a
    contact of the visit with another item; `moved`: events and impressions that got another instant, at most
    `by_us` later; `unit`: the coarsest of UNITS that all instants are whole numbers of, "" for none.
    """

    contacts: int
    tied: int
    moved: int
    by_us: int
    unit: str

    def in_words(self) -> list[str]:
        """Lines for the reader; none where every contact has an instant of its own.

        >>> Ties(200, 150, 170, 12, "days").in_words()[0]
        '75.0% of 200 contacts share their instant with another of their visit: times are whole days'
        """
        if not self.tied:
            return []
        whole = f": times are whole {self.unit}" if self.unit else ""
        lines = [
            f"{self.tied / self.contacts:.1%} of {self.contacts:,} contacts share their instant with another "
            f"of their visit{whole}",
            f"their order is the export's: {self.moved:,} rows moved by at most {self.by_us:,} us",
        ]
        if self.tied > COARSE * self.contacts:
            lines.append("the visit's order rests on it, impressions count only after their instant is over,")
            lines.append("and ages within a visit mean nothing: export finer times for better lists")
        return lines


def put_in_order(connection: duckdb.DuckDBPyConnection, table: str) -> Ties:
    """Give the accepted events of `table` (pipelines.ingest.quarantine) instants in the order of the export.

    The order is (event_ts, impressions last, part, file, source_row), and instants grow strictly along it;
    no event moves that follows the one before it by a microsecond or more.
    """
    rows = f"(SELECT * FROM {table} WHERE rule IS NULL)"
    contacts, tied = tied_contacts(connection, rows)
    unit = unit_of_time(connection, rows)
    connection.execute(
        f"""CREATE TEMP TABLE moved AS
        WITH placed AS (
            SELECT part, file, source_row, epoch_us(event_ts) AS ts, dense_rank() OVER (
                ORDER BY event_ts, type = 'impression',
                if(type = 'impression', NULL, part), if(type = 'impression', NULL, file),
                if(type = 'impression', NULL, source_row)) AS place
            FROM {table} WHERE rule IS NULL),
        ordered AS (SELECT *, place + max(ts - place) OVER (ORDER BY place) AS own FROM placed)
        SELECT part, file, source_row, ts, own FROM ordered WHERE own <> ts"""
    )
    connection.execute(
        f"""UPDATE {table} SET event_ts = make_timestamptz(own), created_ts = CASE
            WHEN created_ts >= event_ts THEN greatest(created_ts, make_timestamptz(own)) ELSE created_ts END
        FROM moved WHERE {table}.part = moved.part AND {table}.file = moved.file
            AND {table}.source_row = moved.source_row"""
    )
    ((moved, by_us),) = connection.execute(
        "SELECT count(*), coalesce(max(own - ts), 0) FROM moved"
    ).fetchall()
    return Ties(contacts, tied, moved, by_us, unit)


def tied_contacts(connection: duckdb.DuckDBPyConnection, rows: str) -> tuple[int, int]:
    """Contacts of the SQL relation `rows` (session_id, event_ts, type, item_id) in visits of two items or
    more, and those among them that share their instant with a contact of the visit with another item.
    """
    product = ", ".join(f"'{kind}'" for kind in PRODUCT_TYPES)
    ((contacts, tied),) = connection.execute(
        f"""WITH contact AS (SELECT * FROM {rows} WHERE type IN ({product}))
        SELECT coalesce(sum(n), 0), coalesce(sum(n) FILTER (items > 1), 0) FROM (
            SELECT session_id, count(*) AS n, count(DISTINCT item_id) AS items FROM contact
            GROUP BY session_id, event_ts)
        SEMI JOIN (
            SELECT session_id FROM contact GROUP BY session_id HAVING count(DISTINCT item_id) > 1
        ) USING (session_id)"""
    ).fetchall()
    return int(contacts), int(tied)


def unit_of_time(connection: duckdb.DuckDBPyConnection, rows: str) -> str:
    """The coarsest of UNITS that the instants of `rows` are whole numbers of, "" for none.

    Days may begin at another zone's midnight: then there are two times of day at most, by summer and winter.
    """
    whole = ", ".join(f"coalesce(bool_and(epoch_us(event_ts) % {us} = 0), false)" for us in UNITS.values())
    day = UNITS["days"]
    found = connection.execute(
        f"""SELECT count(DISTINCT epoch_us(event_ts) % {day}), count(DISTINCT epoch_us(event_ts) // {day}),
            {whole} FROM {rows}"""
    ).fetchall()
    ((times, days, *fits),) = found
    if times <= 2 < days:
        return "days"
    return next((name for name, fit in zip(UNITS, fits, strict=True) if fit), "")
