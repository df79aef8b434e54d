"""A draft of rules: typed, checked while it is typed, seen on real lists, tried out, published."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from feature_repo.errors import EndcapError
from feature_repo.events import DEVICES, SURFACES
from feature_repo.params import load
from monitoring.fitting import lab
from monitoring.fitting.reliability import Fates
from monitoring.merchandising import fittings
from monitoring.merchandising.versions import indented
from monitoring.pages.desk import Asked, Desk
from serving.params import Serving
from serving.release import workers
from serving.rules import lint, published
from serving.rules.faults import Fault

LAST = 200  # logged answers that the lab goes through for a page
NEEDED = "why: a change of the rules needs a reason, for the audit"


def edit(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """The editor, with what holds."""
    found = published.read(desk.redis)
    held, _ = published.documents(found)
    return _editor(desk, indented(held, found.version))


def again(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """The editor with a draft that was somewhere else meanwhile."""
    return _editor(desk, asked.form.get("document", ""))


def check(desk: Desk, asked: Asked) -> Response:
    """Every fault of a draft, for the editor."""
    draft, faults = fittings.checked(desk, asked.form.get("document", ""))
    told = [fault._asdict() | {"line": fault.line()} for fault in faults]
    return JSONResponse({"rules": len(draft.rules) if draft else None, "faults": told})


def preview(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """A list before and after, as a part of the editor's page."""
    draft, faults = fittings.checked(desk, asked.form.get("document", ""))
    refused = [fault for fault in faults if fault.refused]
    if draft is None or refused:
        return {"faults": refused, "found": None, "rows": [], "asked": None}
    request = _request(asked)
    found, rows = fittings.fitted(desk, draft, request)
    return {"faults": [], "found": found, "rows": rows, "asked": request}


def judge(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """The lab's report on a draft; without one on what holds, each rule against its absence."""
    found = published.read(desk.redis)
    held, _ = published.documents(found)
    text = asked.form.get("document")
    draft, faults = (held, []) if text is None else fittings.checked(desk, text)
    if draft is None or any(fault.refused for fault in faults):
        return {"report": None, "faults": faults, "document": text, "last": LAST, "of_draft": True}
    with fittings.fittings(desk).room() as room:
        fates = desk.once(Fates, lambda: Fates(desk.redis))
        report = lab.run(desk.redis, room, held, draft, workers.now(desk.redis), LAST, fates)
    faults = [Fault(**fault) for fault in report["faults"]]
    told = {"report": report, "faults": faults, "document": text, "last": LAST}
    return told | {"of_draft": text is not None, "full": lint.FULL}


def publish(desk: Desk, asked: Asked) -> Mapping[str, Any] | Response:
    """Let a draft hold; what is refused goes back to the editor, with its text."""
    return _change(desk, asked, published.publish, "published")


def shadow(desk: Desk, asked: Asked) -> Mapping[str, Any] | Response:
    """Try a draft out beside the lists."""
    return _change(desk, asked, published.set_shadow, "shadow")


def _change(desk: Desk, asked: Asked, change: Any, done: str) -> Mapping[str, Any] | Response:
    text, why = asked.form.get("document", ""), asked.form.get("why", "").strip()
    seen = published.read(desk.redis)  # before the check: what another publishes meanwhile is a conflict
    draft, faults = fittings.checked(desk, text)
    refused = [fault.line() for fault in faults if fault.refused]
    if not why:
        refused.append(NEEDED)
    if draft is None or refused:
        return _editor(desk, text, refused, why)
    try:
        change(desk.redis, draft, asked.act(why, fittings.now_us()), seen)
    except EndcapError as error:
        return _editor(desk, text, [str(error)], why)
    return RedirectResponse(f"/rules?done={done}", 303)


def _editor(desk: Desk, text: str, wrong: list[str] | None = None, why: str = "") -> Mapping[str, Any]:
    found = published.read(desk.redis)
    return {
        "found": found,
        "text": text,
        "wrong": wrong or [],
        "why": why,
        "now": workers.now(desk.redis),
        "share": load("serving", Serving).rules_shadow_share,
        "surfaces": SURFACES,
        "devices": DEVICES,
        "shoppers": [one["user_id"] for one in fittings.somebody(desk, "homepage_hero") if one["user_id"]],
    }


def _request(asked: Asked) -> Any:
    form = dict(asked.form)
    if form.get("surface") not in SURFACES:
        form["surface"] = "homepage_hero"
    return fittings.asked_for(form)
