"""A shop that has candidates to promote: Redis, bundle folders and MLflow aliases, all real."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from shops import tiny_bundle

from feature_repo.params import load
from feature_repo.places import CACHE, CANDIDATE, VERDICT
from pipelines.gates.bar import Evaluation, GateParams, judge
from pipelines.release.gate import verdict_json
from pipelines.release.registry import Registry, store
from serving.release import bundle
from serving.release.state import Act, Release
from serving.stages.diversify import Diversify
from serving.stages.odds import Clicks
from serving.stages.retrieve import Retrieve
from serving.surfaces.craft import Surfaces

ROOT = Path(__file__).resolve().parents[2]
ACT = Act(who="pat", why="a test", now_us=1_767_225_600_000_000)
SPAN = {"from": "2026-02-23T00:00:00Z", "to": "2026-03-02T00:00:00Z"}
Build = Callable[..., Path]


@cache
def real_parts(items: int = 6, seed: int = 0) -> Path:
    """The files of a bundle of so many items, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="endcap-parts-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tiny_bundle.parts(folder / "parts", n=items, seed=seed)


def open_home(folder: Path, patch: pytest.MonkeyPatch, registry: Path, redis_url: str) -> Path:
    """A project folder of its own at `folder`, with a copy of the MLflow store `registry`."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["gate"]["min_ratio"] = 1.1  # the tests say by how much a candidate falls short
    params["shadow"]["required"] = False  # nobody shops here
    params["gate"]["speed_questions"] = 8
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    patch.setenv("ENDCAP_HOME", str(folder))
    patch.setenv("REDIS_URL", redis_url)
    store().parent.mkdir(parents=True)
    compiled = real_parts().parent / "cache"  # all candidates have the same trees: compiled once
    compiled.mkdir(exist_ok=True)
    (folder / CACHE).symlink_to(compiled)
    shutil.copy(registry, store())
    (folder / "data" / "reports").mkdir(parents=True)
    return folder


def report(ndcg: float, coverage: float = 0.8) -> dict[str, Any]:
    """What `endcap evaluate` writes of a candidate with this NDCG@12 and this coverage@12."""
    models = {
        "endcap": {"ndcg_at_12": ndcg, "coverage_at_12": coverage},
        "ease": {"ndcg_at_12": 0.2, "coverage_at_12": 0.6},
    }
    base = {"protocol": "session_continuation", "k": 12, "queries": 1000, "candidates": 445, "span": SPAN}
    return {**base, "bundle": None, "models": models, "slices": {}}


def write_candidate(
    home: Path, content: str, ndcg: float = 0.3, items: int = 6, seed: int = 0, **changes: Any
) -> Path:
    """Writes data/bundles/candidate: a bundle told apart by `content`, judged as `endcap gate` does."""
    parts = home / "parts"
    shutil.copytree(real_parts(items, seed), parts, dirs_exist_ok=True)
    rails = {"popular": [f"item-{i}" for i in (1, 0, *range(2, items)) if i % 10 != 9], "content": content}
    (parts / "rails.json").write_bytes(orjson.dumps(rails))
    metrics = report(ndcg)
    verdict = judge(Evaluation.from_report(metrics), load("gate", GateParams))
    fields = {
        "feature_service": "ranking_v1",
        "retrieve": asdict(load("retrieve", Retrieve)),
        "clicks": asdict(load("clicks", Clicks)),
        "surfaces": asdict(load("surfaces", Surfaces)),
        "diversify": asdict(load("diversify", Diversify)),
        "metrics": metrics,
        "gate": verdict_json(verdict, metrics, None),
    }
    (home / VERDICT).write_bytes(orjson.dumps(fields["gate"]))
    made = bundle.write(parts, fields | changes, home / "written")
    candidate = home / CANDIDATE
    shutil.rmtree(candidate, ignore_errors=True)
    shutil.copytree(made, candidate)
    return candidate


def alias_holders(registry: Registry) -> dict[str, Release]:
    """Alias -> release of the MLflow aliases that are set."""
    found = {alias: registry.holder(alias) for alias in ("champion", "challenger", "previous")}
    return {alias: version.release for alias, version in found.items() if version}
