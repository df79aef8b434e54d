"""Rules and dashboards in deploy/ ask for metrics, labels and commands that exist, and say what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from house.test_docs import options
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from shops.service import Service

from feature_repo.params import load
from monitoring.alerting.troubles import AlarmParams
from monitoring.experiment.attribution import FeedbackParams
from monitoring.pages.desk import ConsoleParams, Desk
from pipelines import cli
from pipelines.local.console import looks
from serving import prometheus
from serving.release.looks import ALARMED

pytest_plugins = ("shops.service",)

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
BOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")
SOURCE = "".join(path.read_text() for path in (ROOT / "serving").rglob("*.py"))


def exposed() -> dict[str, set[str]]:
    """Name of a series as /metrics writes it -> its labels, of the service's own metrics."""
    series: dict[str, set[str]] = {}
    for metric in vars(prometheus).values():
        if metric_name := getattr(metric, "_name", ""):
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
                metric._type, [""]
            )
            buckets = {"le"} if metric._type == "histogram" else set()
            series |= {metric_name + suffix: set(metric._labelnames) | buckets for suffix in suffixes}
    return series


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_rests_on_what_the_service_tells(rule: dict[str, Any]) -> None:
    series, expr = exposed(), rule["expr"]
    asked = set(re.findall(r"endcap_\w+", expr))
    assert asked
    assert asked <= set(series)
    labels = set().union(*(series[name] for name in asked))
    for name, value in re.findall(r'(\w+)="(\w+)"', expr):
        assert name in labels
        assert f'"{value}"' in SOURCE  # a label's value that nobody ever sets never fires
    grouped = {
        label.strip() for found in re.findall(r"(?:by|on) \(([^)]*)\)", expr) for label in found.split(",")
    }
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert grouped | told <= labels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_what_happened_and_which_command_comes_next(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket", "info")
    assert rule["annotations"]["summary"]
    first, job, *rest = rule["annotations"]["next"].split()
    assert (first, job in cli.places()) == ("endcap", True)
    assert {word for word in rest if word.startswith("--")} <= options(job)


def test_every_series_of_the_rules_is_really_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Feast sets it for the process that imports it; with it, what nobody has counted yet is not told.
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    text = prometheus.exposition().decode()
    families = {family.name for family in REGISTRY.collect()}
    for name in {name for rule in RULES for name in re.findall(r"endcap_\w+", rule["expr"])}:
        family = re.sub(r"_(total|bucket)$", "", name)
        assert family in families
        assert f"# TYPE {family}" in text


def asked() -> dict[str, str]:
    """Where a query stands -> the query, of every rule and every panel."""
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for board in BOARDS:
        for panel in json.loads(board.read_text())["panels"]:
            found |= {f"{panel['title']}, {one['refId']}": one["expr"] for one in panel["targets"]}
    return found


# What is told only once it happened.
RARE = {
    *("degraded", "empty_slots", "events_not_stored", "events_uncounted", "compat_events", "item_changes"),
    *("beside", "limited", "rates_local", "rails_refused", "rails_age_seconds"),
}


def test_the_running_service_tells_every_metric_that_is_asked_for(service: Service) -> None:
    wanted = {SUFFIX.sub("", name) for query in asked().values() for name in re.findall(r"endcap_\w+", query)}
    assert len(asked()) > 40
    assert {f"endcap_{name}" for name in RARE} <= {SUFFIX.sub("", name) for name in exposed()}
    event = {"type": "product_viewed", "session_id": "watched", "item_id": "item-1"}
    with service.client() as client:
        client.post("/v1/events", json={"events": [event]})
        client.post("/v1/recommend", json={})
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            client.get("/v1/recommend", params={"surface": "homepage_hero", "session_id": "watched"})
            families = text_string_to_metric_families(client.get("/metrics").text)
            told = {SUFFIX.sub("", family.name) for family in families if family.samples}
            if wanted <= told | {f"endcap_{name}" for name in RARE}:
                return
            time.sleep(0.5)
    raise AssertionError(sorted(wanted - told))


def test_a_panel_groups_by_labels_that_its_metrics_have_and_leaves_no_metric_out() -> None:
    series, shown = exposed(), set()
    for name, query in asked().items():
        found = set(re.findall(r"endcap_\w+", query))
        assert found <= set(series), name
        grouped = {
            one.strip() for group in re.findall(r"(?:by|on) \(([^)]*)\)", query) for one in group.split(",")
        }
        assert grouped <= set().union(*(series[one] for one in found)), name
        shown |= found if name not in {rule["alert"] for rule in RULES} else set()
    every = {SUFFIX.sub("", one) for one in series}
    assert every == {SUFFIX.sub("", one) for one in shown}


def test_every_kind_of_alarm_of_the_console_has_a_rule() -> None:
    feedback, params = load("feedback", FeedbackParams), load("alarms", AlarmParams)
    desk = Desk(Redis(), ROOT / "data", load("console", ConsoleParams), feedback, 0.03)
    assert set(looks(desk, params)) == set(ALARMED)
    other = {"rollback": "endcap_rollout_version", "consumers": "endcap_stream_behind_seconds"}
    expressions = "".join(rule["expr"] for rule in RULES)
    for kind in ALARMED:
        assert f'endcap_alarm{{kind="{kind}"}}' in expressions or other[kind] in expressions


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool of Prometheus is not installed")
def test_prometheus_itself_takes_the_rules_and_each_fires_on_its_numbers_alone() -> None:
    cases = yaml.safe_load((ROOT / "deploy/prometheus/alerts.test.yaml").read_text())["tests"]
    tried = [(one["alertname"], bool(one["exp_alerts"])) for case in cases for one in case["alert_rule_test"]]
    assert set(tried) == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}
    page = (ROOT / "docs/deploy.md").read_text()
    told = [line[2:].split() for line in page.splitlines() if line.startswith("$ promtool ")]
    assert [words[1] for words in told] == ["check", "test"]
    for command in told:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stdout + ended.stderr
