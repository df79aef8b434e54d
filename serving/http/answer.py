"""Answer -> the bytes and headers of HTTP."""

import orjson

from serving.types import Answer


def answer_bytes(answer: Answer) -> bytes:
    """The JSON body: the answer's fields, `warnings` and `debug` only where there is something to say."""
    body = {name: getattr(answer, name) for name in Answer.__slots__}
    body["items"] = [
        {"item_id": slot.item_id, "slot": slot.slot, "score": slot.score, "source": slot.source}
        for slot in answer.items  # orjson takes twice as long for a dataclass
    ]
    if not answer.warnings:
        del body["warnings"]
    if answer.debug is None:
        del body["debug"]
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def cache_headers(method: str, answer: Answer, edge_ttl_s: int) -> dict[str, str]:
    """Browsers keep nothing. The edge (nginx) may keep a healthy GET answer, under its whole URL.

    A GET names its shopper in the URL, so that no shopper's list can be found under another's key.
    """
    keep = edge_ttl_s if method == "GET" and answer.degraded is None and not answer.debug else 0
    return {"Cache-Control": "private, no-store", "X-Accel-Expires": str(keep)}
