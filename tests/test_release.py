"""From an admitted bundle to the champion and back: Redis, bundle folders and MLflow aliases, all real."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import orjson
import pytest
from redis import Redis

from feature_repo.params import load
from pipelines import promote as promote_job
from pipelines import release
from pipelines import rollback as rollback_job
from pipelines.admission import install_bundle
from pipelines.gate import VERDICT, champion_report, verdict_json
from pipelines.promote import promote
from pipelines.registry import Registry, RegistryError, store
from pipelines.rollback import rollback
from serving import bundle, state
from serving.diversify import Diversify
from serving.errors import BundleError
from serving.retrieve import Retrieve
from serving.state import Act, Release, RolloutError
from training.gates import Evaluation, GateError, GateParams, judge

ROOT = Path(__file__).resolve().parents[1]
ACT = Act(who="pat", why="a test", now_us=1_767_225_600_000_000)
SPAN = {"from": "2026-02-23T00:00:00Z", "to": "2026-03-02T00:00:00Z"}
Build = Callable[..., Path]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables: making them takes seconds, a copy takes none."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{path}")
    return path


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path, redis_url: str
) -> Iterator[Path]:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", redis_url)
    store().parent.mkdir(parents=True)
    shutil.copy(empty_store, store())
    (tmp_path / "data" / "reports").mkdir(parents=True)
    yield tmp_path


@pytest.fixture
def redis(home: Path, redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def report(ndcg: float, coverage: float = 0.8) -> dict[str, Any]:
    models = {
        "endcap": {"ndcg_at_12": ndcg, "coverage_at_12": coverage},
        "ease": {"ndcg_at_12": 0.2, "coverage_at_12": 0.6},
    }
    base = {"protocol": "session_continuation", "k": 12, "queries": 1000, "candidates": 445, "span": SPAN}
    return {**base, "bundle": None, "models": models, "slices": {}}


@pytest.fixture
def build(home: Path) -> Build:
    """Writes data/bundles/candidate: files of the given content, judged as `endcap gate` does."""

    def built(content: str, ndcg: float = 0.3, **changes: Any) -> Path:
        parts = home / "parts"
        parts.mkdir(exist_ok=True)
        for name in bundle.FILES:
            (parts / name).write_text('["a", "b"]' if name == "item_ids.json" else f"{name} {content}")
        metrics = report(ndcg)
        verdict = judge(Evaluation.from_report(metrics), load("gate", GateParams))
        fields = {
            "feature_service": "ranking_v1",
            "retrieve": asdict(load("retrieve", Retrieve)),
            "diversify": asdict(load("diversify", Diversify)),
            "metrics": metrics,
            "gate": verdict_json(verdict, metrics, None),
        }
        (home / VERDICT).write_bytes(orjson.dumps(fields["gate"]))
        made = bundle.write(parts, fields | changes, home / "written")
        candidate = home / promote_job.CANDIDATE
        shutil.rmtree(candidate, ignore_errors=True)
        shutil.copytree(made, candidate)
        return candidate

    return built


def aliases(registry: Registry) -> dict[str, Release]:
    found = {alias: registry.holder(alias) for alias in ("champion", "challenger", "previous")}
    return {alias: version.release for alias, version in found.items() if version}


def test_the_first_promotion_makes_a_champion_that_serves_from_its_own_folder(
    redis: Redis, build: Build, home: Path
) -> None:
    done = promote(build("one"), redis, Registry(), ACT)
    assert (done.role, done.version, done.replaced) == ("champion", "1", None)
    found = release.present(redis)
    assert found.champion == done.release
    assert bundle.verify(home / done.release.path)["digest"] == done.release.digest
    assert aliases(Registry()) == dict(champion=done.release)
    assert not list((home / "data" / "bundles").glob(".*"))


def test_the_next_one_waits_as_challenger_and_changes_nothing_that_serves(redis: Redis, build: Build) -> None:
    registry = Registry()
    first = promote(build("one"), redis, registry, ACT).release
    second = promote(build("two"), redis, registry, ACT)
    assert (second.role, second.version) == ("challenger", "2")
    found = release.present(redis)
    assert (found.champion, found.version) == (first, 1)
    assert release.waiting_challenger() == second.release
    assert state.read_audit(redis)[0]["what"] == "register_challenger"


def test_direct_replaces_the_champion_and_rollback_brings_it_back(redis: Redis, build: Build) -> None:
    registry = Registry()
    first = promote(build("one"), redis, registry, ACT).release
    second = promote(build("two"), redis, registry, ACT, direct=True)
    assert (second.role, second.replaced) == ("champion", first)
    assert aliases(registry)["previous"] == first
    back = rollback(redis, ACT)
    assert (back.champion, back.previous) == (first, second.release)
    release.on_rolled_back(back)
    assert aliases(registry) == dict(champion=first, previous=second.release)
    assert [entry["what"] for entry in state.read_audit(redis)] == [
        "revert_to_previous",
        "install",
        "install",
    ]


def test_a_promoted_canary_moves_all_three_aliases(redis: Redis, build: Build) -> None:
    registry = Registry()
    first = promote(build("one"), redis, registry, ACT).release
    second = promote(build("two"), redis, registry, ACT).release
    present = release.present(redis)
    full = state.start_canary(redis, present, second, 100, "second-1", ACT)
    release.on_promoted(state.promote_champion(redis, full, ACT))
    assert aliases(registry) == dict(champion=second, previous=first)


def test_promoting_the_champion_again_changes_nothing(redis: Redis, build: Build) -> None:
    registry, folder = Registry(), build("one")
    first = promote(folder, redis, registry, ACT)
    again = promote(folder, redis, registry, ACT, direct=True)
    assert again == first
    found = release.present(redis)
    assert (found.version, found.previous) == (1, None)


def test_a_failed_gate_promotes_nothing_and_says_by_how_much(redis: Redis, build: Build) -> None:
    with pytest.raises(GateError, match=r"ndcg_at_12 is 0\.2100, needed 0\.2200, missing by 0\.0100"):
        promote(build("weak", ndcg=0.21), redis, Registry(), ACT)
    assert state.read(redis) is None
    assert aliases(Registry()) == dict()


def test_a_candidate_left_by_an_earlier_run_is_not_promoted_when_the_newest_gate_failed(
    redis: Redis, build: Build, home: Path
) -> None:
    build("one")
    weak = report(0.1)
    failed = judge(Evaluation.from_report(weak), load("gate", GateParams))
    (home / VERDICT).write_bytes(orjson.dumps(verdict_json(failed, weak, None)))
    with pytest.raises(GateError, match=r"the newest one failed.*missing by 0\.1200"):
        promote_job.main()
    assert state.read(redis) is None


def test_a_tampered_file_is_refused_and_leaves_nothing_behind(redis: Redis, build: Build, home: Path) -> None:
    folder = build("one")
    (folder / "ranker.txt").write_text("another ranker")
    with pytest.raises(BundleError, match=r"ranker\.txt: sha256"):
        promote(folder, redis, Registry(), ACT)
    assert [path.name for path in (home / "data" / "bundles").iterdir()] == ["candidate"]


def test_a_bundle_evaluated_again_brings_its_new_manifest(build: Build, home: Path) -> None:
    first = install_bundle(build("one", ndcg=0.3))
    assert install_bundle(build("one", ndcg=0.3)) == first
    shutil.rmtree(home / "written")
    assert install_bundle(build("one", ndcg=0.35)) == first
    assert release.read_manifest(home / first.path)["metrics"]["models"]["endcap"]["ndcg_at_12"] == 0.35


def test_no_promotion_while_a_canary_is_under_way(redis: Redis, build: Build) -> None:
    registry = Registry()
    promote(build("one"), redis, registry, ACT)
    second = promote(build("two"), redis, registry, ACT).release
    present = release.present(redis)
    state.start_canary(redis, present, second, 10, "second-1", ACT)
    with pytest.raises(release.ReleaseError, match=f"{second.digest} is on trial at 10 %"):
        promote(build("three"), redis, registry, ACT, direct=True)


def test_rollback_without_an_earlier_release_says_so(redis: Redis, build: Build) -> None:
    with pytest.raises(release.ReleaseError, match="nothing was ever promoted"):
        rollback(redis, ACT)
    promote(build("one"), redis, Registry(), ACT)
    with pytest.raises(RolloutError, match="there is no earlier release"):
        rollback(redis, ACT)


def test_rollback_refuses_a_release_whose_folder_is_gone(redis: Redis, build: Build, home: Path) -> None:
    first = promote(build("one"), redis, Registry(), ACT).release
    second = promote(build("two"), redis, Registry(), ACT, direct=True).release
    shutil.rmtree(home / first.path)
    with pytest.raises(release.ReleaseError, match="is gone"):
        rollback(redis, ACT)
    found = release.present(redis)
    assert found.champion == second


def test_the_rollback_job_moves_pointer_and_aliases_and_prints_both_releases(
    redis: Redis, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    first = promote(build("one"), redis, Registry(), ACT).release
    second = promote(build("two"), redis, Registry(), ACT, direct=True).release
    rollback_job.main(why="customers complain")
    assert f"champion: {second.digest} -> {first.digest}" in capsys.readouterr().out
    assert aliases(Registry())["champion"] == first
    assert state.read_audit(redis)[0]["why"] == "customers complain"


def test_a_registry_that_cannot_be_reached_leaves_the_pointer_moved_and_is_repaired_later(
    redis: Redis, build: Build, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = promote(build("one"), redis, Registry(), ACT).release
    second = promote(build("two"), redis, Registry(), ACT, direct=True).release
    hidden = store().rename(store().with_suffix(".away"))
    store().mkdir()
    with pytest.raises(RegistryError, match=r"Redis still says what serves; `endcap promote --repair`"):
        rollback_job.main()
    found = release.present(redis)
    assert found.champion == first
    store().rmdir()
    hidden.rename(store())
    assert aliases(Registry())["champion"] == second
    promote_job.main(fix=True)
    assert first.digest in capsys.readouterr().out
    assert aliases(Registry()) == dict(champion=first, previous=second)


def test_a_version_carries_its_gate_and_its_source_is_the_bundle(
    redis: Redis, build: Build, home: Path
) -> None:
    done = promote(build("one"), redis, Registry(), ACT)
    version = Registry().holder("champion")
    assert version is not None
    assert version.tags["gate"] == "passed"
    assert version.tags["digest"] == done.release.digest
    assert orjson.loads(version.tags["gate_checks"])["ndcg_at_12"] == [0.3, pytest.approx(0.22)]
    assert version.tags["evaluated"] == f"{SPAN['from']} to {SPAN['to']}"
    mlflow.set_tracking_uri(f"sqlite:///{store()}")  # else mlflow makes a store in the working folder
    mlflow.set_registry_uri(f"sqlite:///{store()}")
    fetched = mlflow.artifacts.download_artifacts(
        "models:/endcap@champion", tracking_uri=f"sqlite:///{store()}"
    )
    assert Path(fetched).resolve() == (home / done.release.path).resolve()


def test_the_gate_finds_the_champion_in_the_registry(redis: Redis, build: Build, home: Path) -> None:
    assert champion_report() is None
    done = promote(build("one", ndcg=0.31), redis, Registry(), ACT)
    assert champion_report() == (done.release.digest, report(0.31))
    shutil.rmtree(home / done.release.path)
    assert champion_report() is None


def test_the_promote_job_says_what_comes_next(
    build: Build, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    build("one")
    promote_job.main()
    assert "is champion" in capsys.readouterr().out
    build("two")
    promote_job.main()
    printed = capsys.readouterr().out
    assert "is challenger" in printed
    assert "`endcap rollout start`" in printed


def test_without_redis_the_error_names_the_address(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(release.ReleaseError, match=r"redis://127\.0\.0\.1:1/0 does not answer; .*endcap up"):
        promote_job.main()
