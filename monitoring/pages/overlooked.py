"""Unseen: the newest report of `endcap unseen`, products that nobody was shown and why."""

from collections.abc import Mapping
from typing import Any

import orjson

from feature_repo.places import UNSEEN, UNSEEN_PICTURE
from monitoring.pages.desk import Asked, Desk

HOPELESS = ("sold out", "not in release")  # nobody expects an impression of them: they come last
DAYS = 14  # on the page, the newest first
MOST = 200  # products on the page; the report's own page has all


def gather(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """`cause` of the query narrows the products to those of one."""
    file = desk.data / "reports" / UNSEEN.name
    report = orjson.loads(file.read_bytes()) if file.exists() else None
    found = sorted(report["items"], key=lambda one: one["cause"] in HOPELESS) if report else []
    if cause := asked.query.get("cause"):
        found = [one for one in found if one["cause"] == cause]
    told = {"report": report, "items": found[:MOST], "many": len(found), "cause": cause}
    days = report.get("days", [])[: -DAYS - 1 : -1] if report else []
    return told | {"days": days, "picture": f"reports/{UNSEEN_PICTURE.name}"}
