"""The page Unseen: what the newest report says, narrowed to a cause, with hostile titles as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import redis
from starlette.testclient import TestClient

from feature_repo.params import load
from monitoring.console.app import build_app
from monitoring.experiment.attribution import FeedbackParams
from monitoring.pages.desk import ConsoleParams, Desk

BEARER = {"Authorization": "Bearer the token"}


def report() -> dict[str, Any]:
    items = [
        {"item_id": f"i{n}", "title": "<script>alert(1)</script>", "cause": cause, "told": "best rank 9"}
        | {"last_seen": None, "rank": 9, "gap": 0.5}
        for n, cause in enumerate(["outranked", "outranked", "sold out"])
    ]
    told = {"now": "2026-03-04T06:09:06+00:00", "hours": 72, "source": "2 logged answers", "products": 60}
    told |= {"unseen": 3, "could_be_sold": 2, "causes": {"outranked": 2, "sold out": 1}, "items": items}
    told["days"] = [
        {"day": 20_515 + n, "impressions": 1_200, "gini": 0.9, "coverage": 0.25, "tail_share": n / 10 or None}
        for n in range(2)
    ]
    explored = {"lists": 40, "shoppers": 30, "clicks": 2}
    reach = {"share": 0.1, "unseen_without": 9, "slots_a_day": 3, "lists_a_day": 40}
    bill = reach | {"explored": explored, "ctr_change": [-0.01, -0.03, 0.01], "clicks": [-0.4, -1.2, 0.4]}
    return told | {"exploration": bill}


def test_the_page_shows_the_newest_report_and_executes_nothing(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    params = ConsoleParams(audit_entries=50, looks=3, session_s=60, pictures="http://127.0.0.1:1")
    with redis.Redis.from_url(redis_url) as store:
        desk = Desk(store, tmp_path, params, load("feedback", FeedbackParams), 0.03)
        client = TestClient(build_app(desk, {"viewer": "the token"}))
        assert "endcap unseen" in client.get("/unseen", headers=BEARER).text
        (tmp_path / "reports" / "unseen.json").write_bytes(orjson.dumps(report()))
        page = client.get("/unseen", headers=BEARER).text
        assert (
            "3 of 60 products" in page
            and "-1.00 %" in page
            and "3 slots a day" in page
            and "/reports/reports/unseen.png" in page
        )
        assert page.index("2026-03-04</td>") < page.index("2026-03-03</td>")
        assert all(told in page for told in ("10.0 %", "25.0 %", "0.900", ">-<"))
        assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
        narrow = client.get("/unseen", params={"cause": "sold out"}, headers=BEARER).text
        assert ">i2</a>" in narrow and ">i0<" not in narrow
        assert client.get("/unseen").status_code == 401
