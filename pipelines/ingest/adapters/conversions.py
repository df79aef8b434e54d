"""SQL that turns text cells into canonical values: words for nothing, numbers, flags, lists.

What does not convert is null, and its row goes to quarantine with the cell's own text: nothing is guessed.
"""

import re
from collections.abc import Iterable
from zoneinfo import ZoneInfo

from feature_repo.events import TYPES
from feature_repo.vocabulary.naming import NOTHING
from pipelines.ingest.adapters.cells import READABLE, literal
from pipelines.ingest.adapters.instants import Reading, of_counts, parsed

_BLANKS = literal(" \t\u00a0\u202f")
_TRUE, _FALSE = "('true', 't', 'yes', 'y', '1')", "('false', 'f', 'no', 'n', '0')"
LIST_SEPARATOR = "|"  # between the texts of one cell
_CURRENCY = re.compile(r"[A-Za-z]{3}")
# decimal of the mapping -> what a number looks like, and what is taken out between its thousands.
_PLAIN = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_GROUP = {".": ",", ",": "."}


def trimmed(sql: str) -> str:
    """The text without the blanks around it."""
    return f"trim({sql}, {_BLANKS})"


def something(sql: str, nothing: Iterable[str] = NOTHING) -> str:
    """The text, null where it is one of the words for nothing; blanks alone are nothing too."""
    words = ", ".join(literal(word) for word in ("", *nothing))
    return f"CASE WHEN {trimmed(sql)} NOT IN ({words}) THEN {sql} END"


def number(sql: str, decimal: str | None = None) -> str:
    """DOUBLE of a text; with `decimal` ("." or ",") its thousands may be apart: 1.299,50 or 1 299,50."""
    text = trimmed(sql)
    if decimal is None:
        return f"CASE WHEN regexp_full_match({text}, {literal(_PLAIN)}) THEN TRY_CAST({text} AS DOUBLE) END"
    apart = f"[{_GROUP[decimal]} '’\u00a0\u202f]"
    fits = rf"[+-]?(\d+|\d{{1,3}}({apart}\d{{3}})+)([{decimal}]\d+)?"
    bare = f"replace(regexp_replace({text}, {literal(apart)}, '', 'g'), {literal(decimal)}, '.')"
    return f"CASE WHEN regexp_full_match({text}, {literal(fits)}) THEN TRY_CAST({bare} AS DOUBLE) END"


def listed(sql: str, itself: str = "NULL") -> str:
    """A list of texts without blanks around them, empty ones, repeats, and the row's own id."""
    texts = f"list_transform({sql}, lambda text: {trimmed('text')})"
    fits = f"text <> '' AND text IS DISTINCT FROM {itself} AND list_position({texts}, text) = place"
    return f"list_filter({texts}, lambda text, place: {fits})"


def converted(sql: str, field: str, kind: str, decimal: str | None) -> str:
    """SQL of a text cell as pipelines.ingest.adapters.cells.WIDE[kind], for every kind but instants."""
    if kind in ("whole", "number"):
        return number(sql, decimal)
    if kind == "flag":
        word = f"lower({trimmed(sql)})"
        return f"CASE WHEN {word} IN {_TRUE} THEN true WHEN {word} IN {_FALSE} THEN false END"
    if kind == "texts":
        return f"string_split({sql}, {literal(LIST_SEPARATOR)})"
    return f"upper({trimmed(sql)})" if field == "currency" else sql


def advice(kind: str, decimal: str | None) -> str:
    """Why a text is no value of its kind, and which key of the mapping would read it."""
    if kind in ("whole", "number"):
        form = f"decimal: '{decimal}'" if decimal else "a plain form such as 12.99; decimal: ',' reads 12,99"
        return f"not {READABLE[kind]} in {form}"
    return f"not {READABLE[kind]}"


def constant(field: str, kind: str, text: str, how: Reading, decimal: str | None) -> str:
    """SQL of a constant of the mapping. Raises ValueError with what is allowed, unless it is of its kind."""
    if field == "type" and text not in TYPES:
        raise ValueError(f"one of {', '.join(TYPES)}")
    if field == "currency" and not _CURRENCY.fullmatch(text):
        raise ValueError("three letters (ISO 4217)")
    if kind == "instant":
        return _instant(text, how)
    plain = decimal is None and re.fullmatch(_PLAIN, text)
    group = _GROUP.get(decimal or "", "")
    apart = decimal and re.fullmatch(rf"[+-]?[\d{re.escape(group)} ]+({re.escape(decimal)}\d+)?", text)
    if kind in ("whole", "number") and not (plain or apart):
        raise ValueError(READABLE[kind])
    if kind == "flag" and literal(text.lower()) not in f"{_TRUE}{_FALSE}":
        raise ValueError(READABLE[kind])
    if not text.strip():
        raise ValueError(READABLE[kind])
    return converted(literal(text), field, kind, decimal)


def _instant(text: str, how: Reading) -> str:
    if how.epoch is not None:
        if not re.fullmatch(_PLAIN, text):
            raise ValueError(f"a number, as epoch: {how.epoch} says")
        return of_counts(f"CAST({literal(text)} AS DOUBLE)", how.epoch)
    when, zone = parsed(text, how.time_format)
    if not (name := zone or how.timezone):
        raise ValueError(READABLE["instant"])
    return f"TIMESTAMPTZ '{when.replace(tzinfo=ZoneInfo(name)).isoformat()}'"
