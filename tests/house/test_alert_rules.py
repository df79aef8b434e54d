"""deploy/prometheus/alerts.yaml asks for metrics, labels and commands that exist, and says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from house.test_docs import options
from prometheus_client import REGISTRY

from pipelines import cli
from serving import prometheus

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
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
