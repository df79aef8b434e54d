"""Answer -> the bytes and headers of HTTP, and -> the entry of the exposure log."""

from __future__ import annotations

from typing import Any

import orjson

from feature_repo.aggregates import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.catalogue import ITEM_CATALOGUE
from feature_repo.matrix import ItemMatrix
from feature_repo.schema import schema_hash
from feature_repo.vectorize import COLUMNS, Visitor
from serving.pipeline import Served
from serving.types import Answer, Request, Rows, Slot


def answer_bytes(answer: Answer) -> bytes:
    """The JSON body; `rule`, `warnings` and `debug` only where there is something to say."""
    body: dict[str, Any] = {
        "request_id": answer.request_id,
        "surface": answer.surface,
        "items": [_slot(slot) for slot in answer.items],
        "arm": answer.arm,
        "bundle": answer.bundle,
        "served_from": answer.served_from,
        "degraded": answer.degraded,
        "feature_age_ms": answer.feature_age_ms,
        "took_ms": answer.took_ms,
    }
    if answer.warnings:
        body["warnings"] = answer.warnings
    if answer.debug is not None:
        body["debug"] = answer.debug
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def _slot(slot: Slot) -> dict[str, Any]:
    found = {"item_id": slot.item_id, "slot": slot.slot, "score": slot.score, "source": slot.source}
    return found | {"rule": slot.rule} if slot.rule else found


def cache_headers(method: str, answer: Answer, edge_ttl_s: int) -> dict[str, str]:
    """Browsers keep nothing. The edge (nginx) may keep a healthy GET answer, under its whole URL.

    A GET names its shopper in the URL, so that no shopper's list can be found under another's key.
    """
    keep = edge_ttl_s if method == "GET" and answer.degraded is None and not answer.debug else 0
    return {"Cache-Control": "private, no-store", "X-Accel-Expires": str(keep)}


def exposure(request: Request, answer: Answer, ts: int) -> dict[str, Any]:
    """What was shown to whom by which release: the denominator of every rate. `ts` in us."""
    return {
        "request_id": answer.request_id,
        "ts": ts,
        "unit": request.user_id or request.session_id,
        "user_id": request.user_id,
        "session_id": request.session_id,
        "arm": answer.arm,
        "bundle": answer.bundle,
        "surface": answer.surface,
        "items": [slot.item_id for slot in answer.items],
    }


def sample(request: Request, answer: Answer, ts: int, served: Served, matrix: ItemMatrix) -> dict[str, Any]:
    """Who was asked for when (us), and the candidates in the order of their model inputs.

    `schema` says what these inputs mean: feature_repo.schema.schema_hash.
    """
    return {
        "request_id": answer.request_id,
        "ts": ts,
        "arm": answer.arm,
        "bundle": answer.bundle,
        "surface": request.surface,
        "user_id": request.user_id,
        "session_id": request.session_id,
        "schema": schema_hash(),
        "items": [matrix.ids[row] for row in served.ranked.rows],
    }


def explanation(served: Served, visitor: Visitor, matrix: ItemMatrix, replaying: bool) -> dict[str, Any]:
    """`debug`: the instant of the features, the 28 values of every item shown, who was left out and why.

    In a replay `features` holds every candidate, best first, and `stored` the rows that they were made of.
    """
    ranked = served.ranked
    place = {matrix.ids[row]: at for at, row in enumerate(ranked.rows.tolist())}
    told = place if replaying else {slot.item_id: place[slot.item_id] for slot in served.slots}
    found = {
        "now": visitor.now,
        "columns": COLUMNS,
        "features": {item: ranked.matrix[at].tolist() for item, at in told.items()},
        "candidates": len(ranked.rows),
        "removed": served.eligible.removed,
    }
    return found | {"stored": stored(visitor, matrix, ranked.rows)} if replaying else found


def stored(visitor: Visitor, matrix: ItemMatrix, rows: Rows) -> dict[str, dict[str, Any]]:
    """View -> column -> what was read: of shopper and visit a value, of the items a list along `rows`.

    Category and brand of the catalogue are codes.
    """
    names = ("price", "margin", "stock", "available_from", "brand")
    catalogue = {name: getattr(matrix, name) for name in names} | {"category_path": matrix.category}
    return {
        USER_HISTORY.name: dict(visitor.user),
        SESSION_CONTEXT.name: dict(visitor.session),
        ITEM_ACTIVITY.name: {name: column[rows].tolist() for name, column in matrix.activity.items()},
        ITEM_CATALOGUE.name: {name: column[rows].tolist() for name, column in catalogue.items()},
    }
