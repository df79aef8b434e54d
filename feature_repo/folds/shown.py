"""What has been listed to the shopper in this visit: the strongest thing that sequence models ignore."""

from collections.abc import Mapping
from typing import Any

from feature_repo.folds.fold import Column, Event, Part, Reading, State


class Shown(Part):
    """The last `limit` distinct items listed, with page, position and how often.

    A page is the impressions of one answer (same request_id) or of one listing (same instant); pages are
    numbered from 1 in the order of arrival. In the state it is one dict, item -> (page, position, count).
    """

    types = frozenset(("impression",))
    _lists = ("shown_items", "shown_pages", "shown_positions", "shown_counts")

    def __init__(self, limit: int, column: str) -> None:
        self._limit = limit
        self.columns = (
            Column("pages", "int64", "pages", "listing pages and slots shown so far"),
            Column("page", "string", "id", "identity of the newest page: request_id, else its instant"),
            Column("shown_items", "list<string>", "item_id", f"last {limit} distinct items listed"),
            Column("shown_pages", "list<int64>", "page", "page on which each was listed last, from 1"),
            Column("shown_positions", "list<int64>", "place", "its place there, from 1; 0 for unknown"),
            Column("shown_counts", "list<int64>", "times", "how often it was listed in this visit"),
        )
        doc = "listing pages and slots shown in this visit"
        self.readings = (Reading(column, "pages", doc, ("pages",), lambda row, _: row["pages"]),)

    def new(self) -> State:
        return {"pages": 0, "page": "", "shown": {}}

    def step(self, state: State, event: Event) -> None:
        page = event.request_id or str(event.ts)
        if page != state["page"]:
            state["page"] = page
            state["pages"] += 1
        shown = state["shown"]
        before = shown.pop(event.item_id, None)
        if before is None and len(shown) == self._limit:
            del shown[next(iter(shown))]
        shown[event.item_id] = (state["pages"], event.position or 0, before[2] + 1 if before else 1)

    def row(self, state: State) -> dict[str, Any]:
        shown = state["shown"]
        rest = [list(column) for column in zip(*shown.values(), strict=True)] if shown else [[], [], []]
        lists = dict(zip(self._lists, (list(shown), *rest), strict=True))
        return {"pages": state["pages"], "page": state["page"], **lists}

    def state(self, row: Mapping[str, Any]) -> State:
        items, *rest = (row[name] for name in self._lists)
        shown = dict(zip(items, zip(*rest, strict=True), strict=True))
        return {"pages": row["pages"], "page": row["page"], "shown": shown}
