"""Who is to blame for a model input that differs: stored columns that differ, else the code above them."""

import math
from collections.abc import Mapping
from typing import Any

from feature_repo.assemble.vectorize import READINGS
from feature_repo.errors import shorten
from feature_repo.features.catalogue import DECLARED, ITEM_CATALOGUE
from feature_repo.features.stored import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY

Stored = Mapping[str, Mapping[str, Any]]  # view -> column -> value, of items a list along the candidates
OF_ITEMS = (ITEM_ACTIVITY.name, ITEM_CATALOGUE.name)
VIEWS = {"user": (USER_HISTORY,), "context": (SESSION_CONTEXT,), "item": (ITEM_ACTIVITY, ITEM_CATALOGUE)}
MADE_OF = {  # model input -> stored columns that it is declared to be made of, "view.column"
    reading.column: tuple(
        f"{view.name}.{name}"
        for name in reading.of
        for view in VIEWS.get(group, DECLARED)
        if name in {column.name for column in view.columns}
    )
    for group, readings in READINGS.items()
    for reading in readings
}


def culprits(
    column: str, online: Stored | None, offline: Stored, places: tuple[int, int], tolerance: float
) -> list[str]:
    """One line per stored column that differs, those that `column` is declared to be made of first.

    Two stored numbers are equal within the share `tolerance` of the larger one: none is too small to count.
    `places`: the item's position among the candidates, online and offline. Equal rows leave the code: a model
    of the release, or the assembler.

    >>> rows = {"session_context": {"views": 3}}
    >>> culprits("session_views", {"session_context": {"views": 4}}, rows, (0, 0), 1e-4)
    ['session_context.views: online 4, offline 3']
    """
    if online is None:
        return ["the service did not tell its stored rows: start it with ENDCAP_REPLAY=1"]
    told = {
        f"{view}.{name}": f"{view}.{name}: online {shorten(a)}, offline {shorten(b)}"
        for view, columns in offline.items()
        for name in columns
        for a, b in [_pair(view, name, online, offline, places)]
        if not equal(a, b, tolerance)
    }
    declared = [told[name] for name in MADE_OF[column] if name in told]
    others = [line for name, line in told.items() if name not in MADE_OF[column]]
    return declared or others or [f"no stored column differs: the code or the model that makes {column}"]


def _pair(view: str, name: str, online: Stored, offline: Stored, places: tuple[int, int]) -> tuple[Any, Any]:
    a, b = online.get(view, {}).get(name), offline[view][name]
    return (a[places[0]] if a else None, b[places[1]]) if view in OF_ITEMS else (a, b)


def equal(one: Any, other: Any, share: float, least: float = 0.0) -> bool:
    """Numbers at most the share `share` of the larger apart, or `least`; NaN and None, unknown, are alike."""
    if isinstance(one, float) or isinstance(other, float):
        x, y = (math.nan if value is None else float(value) for value in (one, other))  # JSON has no NaN
        return math.isclose(x, y, rel_tol=share, abs_tol=least) or (math.isnan(x) and math.isnan(y))
    return bool(one == other)
