"""Privacy: a person is looked up by id, erased with a reason, and has a receipt that can be checked again.

A typed id becomes a pseudonym at once: no address, log or audit of the console has it.
"""

import time
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import RedirectResponse, Response

from feature_repo.errors import EndcapError
from feature_repo.events import is_id
from feature_repo.persons.privacy import persons
from monitoring.erasing import filed
from monitoring.erasing.errands import Errand, Errands
from monitoring.pages.desk import Asked, Desk
from serving.errors import RequestError
from serving.release.state import Act, record

CONFIRM = "erase"
WHY = 500  # characters of a reason


class ErrandError(EndcapError):
    """No errand of that name."""


def look(desk: Desk, asked: Asked) -> Response:
    """Begin to look for `id`. Raises RequestError for what is no id."""
    given = asked.form.get("id", "").strip()
    if not is_id(given):
        raise RequestError("id", given, "a user_id or session_id: 1 to 256 characters, no control characters")
    name = persons().of(given)
    key = _errands(desk).begin(Errand("person", name), ["person", "-", "--json"], given)
    _note(desk, asked, "person looked up", "privacy page")
    return RedirectResponse(f"/privacy/{key}", 303)


def erase(desk: Desk, asked: Asked) -> Response:
    """Begin to erase `id`, typed again, for a reason. Raises RequestError for what is not confirmed."""
    given, why = asked.form.get("id", "").strip(), asked.form.get("why", "").strip()
    name = asked.form.get("name", "")
    if not is_id(given) or persons().of(given) != name:
        raise RequestError("id", "another one", "the id that was looked up, typed once more")
    if asked.form.get("confirm", "").strip().lower() != CONFIRM:
        raise RequestError("confirm", asked.form.get("confirm", ""), f"the word {CONFIRM!r}")
    if not 0 < len(why) <= WHY or not why.isprintable():
        raise RequestError(
            "why", why[:WHY], f"1 to {WHY} characters in one line; no id, it stays in the receipt"
        )
    if given in why.split():
        raise RequestError("why", "the id", "a reason without the id: it stays in receipt and audit")
    file = filed.new(time.time_ns() // 1000)
    words = ["erase", "-", "--receipt", str(file), "--why", f"{asked.person.who}: {why}"]
    key = _errands(desk).begin(Errand("erase", name, receipt=file.name), words, given)
    _note(desk, asked, "erase asked for", why)
    return RedirectResponse(f"/privacy/{key}", 303)


def verify(desk: Desk, asked: Asked) -> Response:
    """Begin to check a receipt."""
    path = filed.path(asked.form.get("receipt", ""))
    words = ["erase", "--verify", str(path)]
    key = _errands(desk).begin(Errand("verify", "", receipt=path.name), words)
    _note(desk, asked, "receipt checked", path.name)
    return RedirectResponse(f"/privacy/{key}", 303)


def errand(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """How far it is, or what it found."""
    found = _errands(desk).get(asked.path["key"])
    if found is None:
        step = "begin again at /privacy; receipts are kept there"
        raise ErrandError(f"privacy: no such errand, or the console was started anew. Next: {step}")
    told: dict[str, Any] = {}
    if found.kind == "person" and found.code in (0, 1) and found.said:
        told = orjson.loads(found.said)
    written = filed.written(found.receipt)
    return {"one": found, "told": told, "written": written, "confirm": CONFIRM}


def _errands(desk: Desk) -> Errands:
    return desk.once(Errands, Errands)


def _note(desk: Desk, asked: Asked, what: str, why: str) -> None:
    record(desk.redis, what, Act(asked.person.who, why, time.time_ns() // 1000))
