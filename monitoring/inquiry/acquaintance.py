"""Shopper: what the store knows of an id, and what would be shown now on a surface, and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from feature_repo.events import SURFACES, is_id
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.stored import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Fold
from feature_repo.online.rows import OnlineView, read_rows
from feature_repo.persons.privacy import persons
from monitoring.inquiry.explainer import explain
from monitoring.pages.desk import Asked, Desk
from serving.errors import RequestError

KINDS = {1: "viewed", 2: "put in the cart", 3: "bought"}
LISTS = (  # title, items, instants, kinds
    ("Last contacts, all visits", "recent_items", "recent_ts", "recent_kinds"),
    ("Contacts of the visit", "contact_items", "contact_ts", "contact_kinds"),
    ("In the cart", "cart_items", "", ""),
    ("Bought", "bought_items", "bought_ts", ""),
)
FORM = ("user_id", "session_id", "page", "surface", "item_id")
NEWEST = 12  # of a list


class Rows:
    """Feast's rows, read as the service reads them."""

    def __init__(self, desk: Desk) -> None:
        self._redis = desk.redis
        folds = (USER_HISTORY, SESSION_CONTEXT, ITEM_ACTIVITY, ITEM_CATALOGUE)
        self._views = {fold.name: OnlineView(fold) for fold in folds}

    def of(self, fold: Fold, ids: Sequence[str]) -> list[tuple[int, dict[str, Any]] | None]:
        """(us, row) or None of each."""
        return read_rows(self._redis, self._views[fold.name], ids) if ids else []

    def titles(self, ids: Sequence[str]) -> dict[str, str]:
        """Item -> title; of those that have one."""
        known = zip(ids, self.of(ITEM_CATALOGUE, ids), strict=True)
        return {item: held[1]["title"] for item, held in known if held and held[1]["title"]}


def gather(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """The rows of the ids asked for, and the list for them; without any id the form alone."""
    query = asked_for(asked)
    rows = desk.once(Rows, lambda: Rows(desk))
    known = []
    for fold, name in ((USER_HISTORY, "user_id"), (SESSION_CONTEXT, "session_id")):
        if value := query.get(name):
            require(name, value)
            known.append(_known(rows, fold, name, value))
    told = explain(query) if query["surface"] else None
    return {"query": query, "surfaces": SURFACES, "known": known, "told": told}


def asked_for(asked: Asked) -> dict[str, str]:
    """The fields of the form, "" for what is not there."""
    return {name: asked.query.get(name, "").strip() for name in FORM}


def require(name: str, value: str) -> None:
    """Raises RequestError for what is no id."""
    if not is_id(value):
        raise RequestError(name, value, "a text of 1 to 256 characters without control characters")


def facts(fold: Fold, row: Mapping[str, Any]) -> list[tuple[str, str, Any, bool]]:
    """(column, what it is, value, whether it is an instant) of what is no list."""
    plain = [column for column in fold.columns if not column.dtype.startswith("list")]
    return [(c.name, c.doc, row[c.name], c.unit == "us") for c in plain if row[c.name] not in (None, "")]


def _known(rows: Rows, fold: Fold, name: str, value: str) -> dict[str, Any]:
    held = rows.of(fold, [persons().of(value)])[0]
    told: dict[str, Any] = {"name": name, "id": value, "doc": fold.doc, "ts": held[0] if held else 0}
    if held is None:
        return told | {"facts": [], "lists": []}
    row, lists = held[1], []
    for title, items, instants, kinds in LISTS:
        ids = (row.get(items) or [])[::-1][:NEWEST]
        if not ids:
            continue
        titles = rows.titles(ids)
        when, did = (row.get(instants) or [])[::-1], (row.get(kinds) or [])[::-1]
        entries = [
            (item, titles.get(item, ""), when[n] if when else 0, KINDS.get(did[n], "") if did else "")
            for n, item in enumerate(ids)
        ]
        lists.append((title, entries))
    return told | {"facts": facts(fold, row), "lists": lists}
