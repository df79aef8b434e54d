"""The drift page shows the report that `endcap drift` writes, and says so where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from starlette.testclient import TestClient

from feature_repo.errors import DataError
from feature_repo.files import write_json
from feature_repo.params import load
from monitoring.console.app import build_app
from monitoring.drift.distances import ColumnDrift, Drift, Gap
from monitoring.drift.drift import drift_json
from monitoring.experiment.attribution import FeedbackParams
from monitoring.pages.desk import Asked, ConsoleParams, Desk, Person
from monitoring.pages.shifts import gather


@pytest.fixture
def desk(redis_url: str, tmp_path: Path) -> Desk:
    (tmp_path / "reports").mkdir()
    params = ConsoleParams(audit_entries=50, looks=3, session_s=60, pictures="http://127.0.0.1:1")
    store = redis.Redis.from_url(redis_url)
    return Desk(store, tmp_path, params, load("feedback", FeedbackParams), 0.03)


def page(desk: Desk) -> str:
    client = TestClient(build_app(desk, {"viewer": "t"}))
    return client.get("/drift", headers={"Authorization": "Bearer t"}).raise_for_status().text


def test_what_moved_stands_first_with_its_numbers(desk: Desk) -> None:
    assert "endcap drift" in page(desk)
    still = ColumnDrift("age_days", Gap(0.1, 0.5, 0.1), Gap(0.0, 0.1), 0.0, 0.0, None, 30.0, 31.0)
    moved = ColumnDrift("views_24h", Gap(1.9, 0.5, 0.1), Gap(0.0, 0.1), 0.0, 0.02, None, 1.26, 2.57)
    write_json(desk.data / "reports/drift.json", drift_json(Drift((still, moved), 4_000, 900, 300, 2.0, 0.1)))
    text = page(desk)
    assert "1 of 2 columns moved" in text and "drift.html" not in text
    assert text.index("views_24h") < text.index("age_days")
    assert "900 live answers" in text and ">1.26</td>" in text and ">2.57</td>" in text
    (desk.data / "reports/drift.html").write_text("<p>distributions")
    assert '<a href="/reports/reports/drift.html">' in page(desk)


def test_a_report_that_is_none_is_told(desk: Desk) -> None:
    (desk.data / "reports/drift.json").write_text("{")
    with pytest.raises(DataError, match=r"drift.json.*is no JSON.*Next: `endcap drift` writes it anew"):
        gather(desk, Asked(Person("viewer")))
