"""Bodies that went wrong: a real one with a few of its parts lost, doubled, or of another kind."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, -0.0, 2**53, 2**63, 10**40, "", " ", "0", "-5", "1e9", "NaN"),
    *(
        "(not set)",
        "é" * 300,
        "x" * 5_000,
        "a\u0000b",
        "\ud83d",
        "\u202e",
        "2026-13-45T99:99:99Z",
        "0001-01-01",
    ),
    *("9" * 25, "2026-01-31T12:00:00+14:00", [], {}, [[]], [None], {"": {}}, ["a"] * 40, "eyJhIjpbW1tb"),
)


def mutant(body: Any, seed: int) -> Any:
    """`body` with one to six parts changed; the same for the same seed."""
    draw = random.Random(seed)
    body = deepcopy(body)
    for _ in range(draw.randint(1, 6)):
        body = _changed(body, draw)
    return body


def _changed(value: Any, draw: random.Random) -> Any:
    """One part somewhere in the value, any depth alike, replaced, removed, doubled or moved."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        return {**value, key: _changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        return [*value[:at], _changed(value[at], draw), *value[at + 1 :]]
    how = draw.randrange(6)
    if how == 0 and isinstance(value, dict) and value:
        lost = draw.choice(list(value))
        return {key: inner for key, inner in value.items() if key != lost}
    if how == 1 and isinstance(value, list):
        return value * draw.choice((0, 2, 30))
    if how == 2:
        return [value]
    if how == 3 and isinstance(value, str):
        cut = draw.randint(0, len(value))
        return value[:cut] + draw.choice(("", "\u0000", "é", "=", '{"')) + value[cut:]
    if how == 4 and isinstance(value, str | int | float):
        return str(value) if not isinstance(value, str) else (int(value) if value.isdecimal() else [value])
    return draw.choice(ODD)


def written(body: Any, seed: int) -> bytes:
    """As bytes; one in ten is cut off or has a byte changed."""
    draw = random.Random(seed)
    text = json.dumps(body, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if text and draw.random() < 0.1:
        at = draw.randrange(len(text))
        return text[:at] + (b"" if draw.random() < 0.5 else bytes([draw.randrange(256)]) + text[at + 1 :])
    return text
