"""What a file says of items, as documents of POST /v1/items: CSV, JSON lines, parquet, product feeds.

A table has the columns of data/raw/items.parquet, and `deleted`; a feed is one of Google Merchant Center. An
empty cell says nothing: the field stays as it is. What does not convert is sent as it stands, for the service
refuses it by name.
"""

import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from feature_repo.errors import DataError, shorten
from feature_repo.events import ITEM_NAMES
from pipelines.ingest.adapters.conversions import LIST_SEPARATOR, NOTHING
from pipelines.ingest.files.delimited import read_delimited
from pipelines.ingest.files.exports import kind_of_file
from pipelines.ingest.files.feeds import FEED, read_feed
from pipelines.ingest.files.records import read_records

CELLS = "as many cells as the header"
KNOWN = (*ITEM_NAMES, "deleted", "event_ts")
_WHOLE = re.compile(r"[+-]?\d{1,18}\Z")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\Z")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?\Z")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Offer(NamedTuple):
    """One row: its place in the file, and the document; or its text, and what it should have been."""

    row: int
    document: dict[str, Any]
    text: str = ""
    lost: str = ""


def read_offers(path: Path) -> Iterator[Offer]:
    """Every row of the file, in order. Raises DataError for a file that is none of these."""
    if not path.is_file():
        raise DataError(path, "no such file", next_step="name a CSV, JSON lines, parquet or product feed")
    kind = kind_of_file(path)
    if kind == "feed" or (kind == "delimited" and _is_feed(path)):
        yield from _of_feed(path)
        return
    records, _ = read_records(path, list(KNOWN), ("item_id",))
    for record in records:
        if record.lost:
            text, why = record.lost
            yield Offer(record.row, {}, shorten(text), why or CELLS)
            continue
        known = {name: record.values[name] for name in KNOWN if name in record.values}
        document = {name: _value(name, value) for name, value in known.items()}
        yield Offer(record.row, {name: value for name, value in document.items() if value is not None})


def _is_feed(path: Path) -> bool:
    """Whether the header is a feed's: an `id` and no `item_id`."""
    try:
        read_delimited(path, ["item_id"], None, "utf-8", needed=("item_id",))
    except DataError as error:
        if "item_id" not in error.problem:
            raise
        return True
    return False


def _of_feed(path: Path) -> Iterator[Offer]:
    """in_stock and its like clear a stock that was 0: a feed tells no number."""
    wanted = list(dict.fromkeys([*FEED.values(), "availability"]))
    table = read_feed(path, wanted, None, "utf-8").table
    columns = {name: table[str(at)].to_pylist() for at, name in enumerate(wanted)}
    for at in range(table.num_rows):
        if text := table["unread_line"][at].as_py():
            yield Offer(at + 1, {}, shorten(text), table["unread_why"][at].as_py() or CELLS)
            continue
        document = {name: _value(name, columns[column][at]) for name, column in FEED.items()}
        document = {name: value for name, value in document.items() if value is not None}
        if (columns["availability"][at] or "").strip() and "stock" not in document:
            document["stock"] = None
        yield Offer(at + 1, document)


def _value(name: str, value: Any) -> Any:
    """A cell as JSON has it; None where it says nothing."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, date):
        return value.isoformat()
    if name in ("accessories", "tags") and isinstance(value, str):
        return [part.strip() for part in value.split(LIST_SEPARATOR) if part.strip()] or None
    if not isinstance(value, str):
        return int(value) if name == "stock" and isinstance(value, float) and value.is_integer() else value
    text = value.strip()
    if text in NOTHING:
        return None
    if name == "deleted":
        return _FLAGS.get(text.lower(), text)
    if name in ("price", "margin", "stock"):
        return _number(text)
    return text.upper() if name == "currency" else text


def _number(text: str) -> Any:
    """The number in a text, else the text.

    >>> _number("12"), _number("1,299.00"), _number("12,5")
    (12, 1299.0, '12,5')
    """
    text = text.replace(",", "") if _THOUSANDS.match(text) else text
    if _WHOLE.match(text):
        return int(text)
    return float(text) if _NUMBER.match(text) else text
