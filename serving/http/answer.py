"""Answer -> the bytes and headers of HTTP."""

from __future__ import annotations

from typing import Any

import orjson

from serving.types import Answer, Slot


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
