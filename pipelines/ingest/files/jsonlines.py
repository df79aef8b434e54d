"""JSON, one object per line, as columns of text. The keys of nested objects are joined: `item.id`."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_repo.errors import DataError, shorten
from pipelines.ingest.files.exports import Cells, text_of

NOT_AN_OBJECT = "not one JSON object per line"


def read_json(path: Path, wanted: list[str], encoding: str, separator: str) -> Cells:
    """The wanted keys of each line; a list of texts becomes one text with `separator` between them.

    A line that is no object, or whose wanted value is no single value or list of them, is kept in
    `unread_line`. Raises DataError for a file that is no text, and a key that no line has.
    """
    stores: dict[str, list[str | None]] = {name: [] for name in wanted}
    places: list[tuple[int, int]] = []
    lost: list[tuple[int, int, str, str]] = []
    seen: dict[str, None] = {}
    for at, line in enumerate(lines_of(path, encoding), 1):
        if not line.strip():
            continue
        number = len(places) + len(lost) + 1
        try:
            flat = _flat(object_of(line))
            values = [_text(flat.get(name), separator) for name in stores]
        except (ValueError, RecursionError) as error:
            lost.append((number, at, line, f"{NOT_AN_OBJECT}: {shorten(str(error)[:80])}"))
            continue
        seen.update(dict.fromkeys(flat))
        places.append((number, at))
        for name, value in zip(stores, values, strict=True):
            stores[name].append(value)
    for name in stores:
        if places and name not in seen:
            problem = f"key '{name}' is in no line; keys are {shorten(', '.join(seen), 300)}"
            raise DataError(path, problem, rows=len(places), next_step="correct the mapping")
    columns = {str(n): pa.array(values, pa.string()) for n, values in enumerate(stores.values())}
    table = pa.table(columns | _placed(places))
    refused = {
        "unread_line": pa.array([line for *_, line, _ in lost], pa.string()),
        "unread_why": pa.array([why for *_, why in lost], pa.string()),
    }
    lines_lost = pa.table(_placed([(row, at) for row, at, *_ in lost]) | refused)
    return Cells(pa.concat_tables([table, lines_lost], promote_options="default"))


def lines_of(path: Path, encoding: str) -> list[str]:
    """The lines of a file. Raises DataError for one that is no text, or begins a list."""
    lines = text_of(path, encoding).removesuffix(b"\n").decode().split("\n")
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        step = "write each object of the list on a line of its own"
        raise DataError(path, f"line 1: {shorten(first[:40])} begins a list; {NOT_AN_OBJECT}", next_step=step)
    return lines


def object_of(line: str) -> dict[str, Any]:
    """One line's object. Raises ValueError, RecursionError.

    Numbers stay as they were written: an id of 20 digits is not a float.
    """
    found = json.loads(
        line, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_without_repeats
    )
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__}")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, inner in value.items():
        for name, found in _flat(inner).items() if isinstance(inner, dict) else [("", inner)]:
            place = f"{key}.{name}" if name else key
            if place in flat:
                raise ValueError(f"the key {place} stands twice")
            flat[place] = found
    return flat


def _text(value: Any, separator: str) -> str | None:
    if isinstance(value, list):
        texts = [_text(inner, separator) for inner in value]
        if any(isinstance(inner, list | dict) for inner in value) or any(
            separator in (t or "") for t in texts
        ):
            raise ValueError(f"a list of lists or objects, or of texts with {separator}")
        return separator.join(text for text in texts if text)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        value.encode()  # half a character, such as a lone \ud83c, is a ValueError
        return value or None
    return None


def _placed(places: list[tuple[int, int]]) -> dict[str, pa.Array]:
    return {
        "source_row": pa.array([row for row, _ in places], pa.int64()),
        "line": pa.array([line for _, line in places], pa.int64()),
    }
