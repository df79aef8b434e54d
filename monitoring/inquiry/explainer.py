"""The service's POST /v1/explain, asked over loopback with the secret key, in words for a page."""

from collections.abc import Mapping
from typing import Any

import httpx

from feature_repo.assemble.vectorize import READINGS
from feature_repo.errors import ParamsError, UnavailableError
from feature_repo.events import SURFACES
from feature_repo.ports import SECRET, service_url, token, tokens_file

TIMEOUT_S = 15.0
WHO = ("user_id", "session_id")
TOLD = {reading.column: reading.doc for group in READINGS.values() for reading in group}
TOLD |= {
    "attraction": "how often it is clicked of what is shown beside it",
    "base": "what every score begins with",
    "place": "its place in the blend of the sources; no trees decide here",
}


def explain(query: Mapping[str, str], *asked: str) -> dict[str, Any]:
    """The answer for the shopper and page that `query` names; `asked`: products to be told of besides.

    Raises UnavailableError where the service is silent or refuses, ParamsError where there is no key.
    """
    key = token(SECRET)
    if key is None:
        raise ParamsError(f"secret key: {tokens_file()} has none. Next: `endcap up` makes one")
    surface = query.get("surface", "")
    body: dict[str, Any] = {"surface": surface if surface in SURFACES else SURFACES[0]}
    body |= {name: query[name] for name in WHO if query.get(name)}
    if page := query.get("page", "").strip():
        body["items"] = [page]
    body |= {"fields": ["title", "price", "category_path"], "item_ids": list(asked)}
    try:
        reply = httpx.post(
            f"{service_url()}/v1/explain",
            json=body,
            headers={"authorization": f"Bearer {key}"},
            timeout=TIMEOUT_S,
            trust_env=False,
        )
    except (httpx.HTTPError, UnicodeError) as error:
        step = "`endcap status` tells which processes run"
        raise UnavailableError(f"the service does not answer ({error})", next_step=step) from None
    if reply.status_code != 200:
        raise UnavailableError(f"the service refuses ({reply.status_code}): {reply.text[:500]}")
    found: dict[str, Any] = reply.json()
    for one in (*found["items"], *found["asked"]):
        one["because"] = terms(one)
    return found


def terms(one: Mapping[str, Any], most: int = 5) -> list[dict[str, Any]]:
    """The largest contributions with what their columns mean; those that add nothing are left out."""
    added = [term for term in one["contributions"] or () if abs(term["adds"]) >= 5e-4]
    shown = [term | {"doc": TOLD.get(term["name"], "")} for term in added if term["name"] != "base"][:most]
    top = max((abs(term["adds"]) for term in shown), default=1.0)
    return [term | {"size": abs(term["adds"]) / top} for term in shown]
