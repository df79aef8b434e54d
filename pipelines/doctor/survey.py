"""What is counted in an export before anything is made of it; adapters read it, DuckDB counts."""

from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from feature_repo.events import PRODUCT_TYPES
from pipelines.ingest.adapters.adapters import Adapter
from pipelines.ingest.adapters.cells import literal
from pipelines.ingest.ties import tied_contacts, unit_of_time

CONTACT = f"type IN ({', '.join(map(literal, PRODUCT_TYPES))}) AND item_id IS NOT NULL"
FACTS = ("title", "price", "category_path", "stock")  # of an item
_FIELDS = "event_id, event_ts, type, user_id, session_id, item_id"


@dataclass(frozen=True)
class Survey:
    """Counts of one export; shares are made of them by pipelines.doctor.diagnosis."""

    parts: dict[str, int]  # rows that can be read, by part
    unreadable: dict[str, int]  # rows with a cell that cannot, by part
    types: dict[str, int]  # events by type, the most first
    first: datetime | None  # of the contacts with a product
    last: datetime | None
    days: dict[str, int]  # contacts by day, UTC
    contacts: int
    in_order: int  # of them in visits of two products or more
    tied: int  # of these share their instant with one with another product
    unit: str  # of time: days, hours, minutes, seconds; "" for finer
    visits: int
    anonymous: int  # visits without a user_id
    shoppers: int
    returning: int  # shoppers of more than one visit
    following: int  # visits with two products or more
    repeated_ids: int  # rows whose event_id stands earlier, too
    items: int
    untouched: int  # products of the catalogue without a contact
    unknown: int  # events of products that the catalogue lacks
    without: dict[str, int]  # products that lack a fact, by fact
    alike: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # ids by case or blanks, examples


def survey(adapter: Adapter, connection: duckdb.DuckDBPyConnection) -> Survey:
    """Reads every part once. Raises DataError as the adapters do; `connection` is left with two tables."""
    connection.execute(
        "CREATE TABLE seen (event_id VARCHAR, event_ts TIMESTAMPTZ, type VARCHAR, user_id VARCHAR, "
        "session_id VARCHAR, item_id VARCHAR)"
    )
    parts: dict[str, int] = {}
    unreadable: dict[str, int] = {}
    for part in ("events", "impressions"):
        if extract := adapter.extract(part, connection):
            connection.execute(
                f"INSERT INTO seen SELECT {_FIELDS} FROM ({extract.query}) WHERE unread_field IS NULL"
            )
            read = _row(connection, "SELECT count(*) FROM seen")[0] - sum(parts.values())
            parts[part], unreadable[part] = read, extract.rows - read
    if extract := adapter.extract("items", connection):
        facts = ", ".join(("item_id", *FACTS))
        connection.execute(
            f"CREATE TABLE goods AS SELECT {facts} FROM ({extract.query}) WHERE unread_field IS NULL"
        )
        parts["items"] = _row(connection, "SELECT count(*) FROM goods")[0]
        unreadable["items"] = extract.rows - parts["items"]
    else:
        facts = ", ".join(f"NULL AS {name}" for name in FACTS)
        connection.execute(f"CREATE TABLE goods AS SELECT DISTINCT item_id, {facts} FROM seen")
        connection.execute("DELETE FROM goods WHERE item_id IS NULL")
    connection.execute(f"CREATE VIEW contact AS SELECT * FROM seen WHERE {CONTACT}")
    lacking = ", ".join(f"count(*) - count({name})" for name in FACTS)
    first, last, contacts = _row(connection, "SELECT min(event_ts), max(event_ts), count(*) FROM contact")
    visits, anonymous, following = _row(
        connection,
        """SELECT count(*), count(*) FILTER (who IS NULL), count(*) FILTER (products > 1) FROM (
            SELECT max(user_id) AS who, count(DISTINCT item_id) AS products
            FROM contact GROUP BY session_id)""",
    )
    shoppers, returning = _row(
        connection,
        """SELECT count(*), count(*) FILTER (visits > 1) FROM (SELECT count(DISTINCT session_id) AS visits
            FROM contact WHERE user_id IS NOT NULL GROUP BY user_id)""",
    )
    in_order, tied = tied_contacts(connection, "contact")
    return Survey(
        parts=parts,
        unreadable={part: rows for part, rows in unreadable.items() if rows},
        types=dict(_rows(connection, "SELECT type, count(*) AS n FROM seen GROUP BY 1 ORDER BY n DESC, 1")),
        first=first,
        last=last,
        days=dict(
            _rows(
                connection,
                "SELECT strftime(event_ts, '%Y-%m-%d'), count(*) FROM contact GROUP BY 1 ORDER BY 1",
            )
        ),
        contacts=contacts,
        in_order=in_order,
        tied=tied,
        unit=unit_of_time(connection, "contact"),
        visits=visits,
        anonymous=anonymous,
        shoppers=shoppers,
        returning=returning,
        following=following,
        repeated_ids=_row(connection, "SELECT count(event_id) - count(DISTINCT event_id) FROM seen")[0],
        items=_row(connection, "SELECT count(DISTINCT item_id) FROM goods")[0],
        untouched=_row(
            connection,
            "SELECT count(DISTINCT item_id) FROM goods WHERE item_id NOT IN (SELECT item_id FROM contact)",
        )[0],
        unknown=_row(
            connection,
            """SELECT count(*) FROM seen WHERE item_id IS NOT NULL
            AND item_id NOT IN (SELECT item_id FROM goods WHERE item_id IS NOT NULL)""",
        )[0],
        without=dict(
            zip(FACTS, _row(connection, f"SELECT {lacking} FROM goods"), strict=True),
        ),
        alike={name: found for name in ("item_id", "user_id") if (found := _alike(connection, name))},
    )


def _alike(connection: duckdb.DuckDBPyConnection, name: str) -> list[tuple[str, str]]:
    """Up to three pairs of ids that are one without case and blanks."""
    return _rows(
        connection,
        f"""SELECT min(id), max(id) FROM (SELECT DISTINCT {name} AS id FROM seen WHERE {name} IS NOT NULL)
            GROUP BY lower(trim(id)) HAVING count(*) > 1 ORDER BY 1 LIMIT 3""",
    )


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple]:
    return connection.execute(query).fetchall()


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple:
    return _rows(connection, query)[0]
