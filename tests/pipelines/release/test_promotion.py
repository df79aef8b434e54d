"""From an admitted bundle to the champion: the gate, the waiting challenger, the version in MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import orjson
import pytest
from redis import Redis
from shops.release import ACT, SPAN, Build, alias_holders, report

from feature_repo.errors import UnavailableError
from feature_repo.params import load
from feature_repo.places import ADMISSION, ADMISSION_PAGE, SCORES, VERDICT
from pipelines.gates.bar import Evaluation, GateError, GateParams, judge
from pipelines.gates.scores import Part, Scores
from pipelines.protocol.metrics import OURS, fingerprint
from pipelines.release import aliases
from pipelines.release import promote as promote_job
from pipelines.release.admission import install_bundle
from pipelines.release.aliases import ReleaseError
from pipelines.release.gate import champion_report, verdict_json
from pipelines.release.promote import promote
from pipelines.release.registry import Registry, store
from serving.errors import BundleError
from serving.release import bundle, state
from serving.release.state import RolloutError
from training.tracking import evaluated


def test_the_first_promotion_makes_a_champion_that_serves_from_its_own_folder(
    redis: Redis, build: Build, home: Path
) -> None:
    done = promote(build("one"), redis, Registry(), ACT)
    assert (done.role, done.version, done.replaced) == ("champion", "1", None)
    found = state.present(redis)
    assert found.champion == done.release
    assert bundle.verify(home / done.release.path)["digest"] == done.release.digest
    assert alias_holders(Registry()) == dict(champion=done.release)
    assert not list((home / "data" / "bundles").glob(".*"))


def test_the_next_one_waits_as_challenger_and_changes_nothing_that_serves(redis: Redis, build: Build) -> None:
    registry = Registry()
    first = promote(build("one"), redis, registry, ACT).release
    second = promote(build("two"), redis, registry, ACT)
    assert (second.role, second.version) == ("challenger", "2")
    found = state.present(redis)
    assert (found.champion, found.version) == (first, 1)
    assert aliases.waiting_challenger() == second.release
    assert state.read_audit(redis)[0]["what"] == "register_challenger"


def test_a_promoted_canary_moves_all_three_aliases(redis: Redis, build: Build) -> None:
    registry = Registry()
    first = promote(build("one"), redis, registry, ACT).release
    second = promote(build("two"), redis, registry, ACT).release
    present = state.present(redis)
    full = state.start_canary(redis, present, second, 100, "second-1", ACT)
    aliases.follow(state.promote_champion(redis, full, ACT))
    assert alias_holders(registry) == dict(champion=second, previous=first)


def test_promoting_the_champion_again_changes_nothing(redis: Redis, build: Build) -> None:
    registry, folder = Registry(), build("one")
    first = promote(folder, redis, registry, ACT)
    again = promote(folder, redis, registry, ACT, direct=True)
    assert again == first
    found = state.present(redis)
    assert (found.version, found.previous) == (1, None)


def test_a_failed_gate_promotes_nothing_and_says_by_how_much(redis: Redis, build: Build) -> None:
    with pytest.raises(GateError, match=r"ndcg_at_12 is 0\.2100, needed 0\.2200 \(.+\), missing by 0\.0100"):
        promote(build("weak", ndcg=0.21), redis, Registry(), ACT)
    assert state.read(redis) is None
    assert alias_holders(Registry()) == dict()


def test_a_failed_gate_is_overruled_with_a_reason_alone_and_the_audit_and_the_version_say_so(
    redis: Redis, build: Build
) -> None:
    weak = build("weak", ndcg=0.21)
    with pytest.raises(ReleaseError, match=r"--force: needs a reason for the audit; allowed: --force --why"):
        promote_job.main(weak, direct=False, fix=False, force=True)
    promote_job.main(weak, direct=False, fix=False, force=True, why="the old one is on fire")
    entry = state.read_audit(redis)[0]
    assert entry["why"] == "the old one is on fire"
    assert entry["numbers"]["forced"].startswith("ndcg_at_12 is 0.2100, needed 0.2200")
    holder = Registry().holder("champion")
    assert holder is not None and holder.tags["gate"] == "forced"


def test_a_verdict_of_something_else_cannot_be_overruled(redis: Redis, build: Build) -> None:
    folder = build("weak", ndcg=0.21)
    manifest = orjson.loads((folder / "manifest.json").read_bytes())
    manifest["metrics"] = report(0.9)
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest))
    with pytest.raises(GateError, match="of another evaluation"):
        promote(folder, redis, Registry(), ACT, forced=True)
    assert state.read(redis) is None


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
    assert aliases.read_manifest(home / first.path)["metrics"]["models"]["endcap"]["ndcg_at_12"] == 0.35


def test_no_promotion_while_a_canary_is_under_way(redis: Redis, build: Build) -> None:
    registry = Registry()
    promote(build("one"), redis, registry, ACT)
    second = promote(build("two"), redis, registry, ACT).release
    present = state.present(redis)
    state.start_canary(redis, present, second, 10, "second-1", ACT)
    with pytest.raises(RolloutError, match=f"{second.digest} is on trial at 10 %"):
        promote(build("three"), redis, registry, ACT, direct=True)


def test_a_version_carries_its_gate_and_its_source_is_the_bundle(
    redis: Redis, build: Build, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = promote(build("one"), redis, Registry(), ACT)
    version = Registry().holder("champion")
    assert version is not None
    assert version.tags["gate"] == "passed"
    assert version.tags["digest"] == done.release.digest
    assert orjson.loads(version.tags["gate_checks"])["ndcg_at_12"] == [0.3, pytest.approx(0.22)]
    assert version.tags["evaluated"] == f"{SPAN['from']} to {SPAN['to']}"
    # Without an address MLflow makes a store in the working folder.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store()}")
    monkeypatch.chdir(home)
    fetched = mlflow.artifacts.download_artifacts("models:/endcap@champion")
    assert Path(fetched).resolve() == (home / done.release.path).resolve()


def test_a_version_is_linked_to_the_run_of_its_evaluation(redis: Redis, build: Build, home: Path) -> None:
    run = evaluated(fingerprint(report(0.31)))
    promote(build("one", ndcg=0.31), redis, Registry(), ACT)
    promote(build("two", ndcg=0.32), redis, Registry(), ACT)  # evaluated elsewhere
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store()}")
    versions = [client.get_model_version("endcap", number) for number in ("1", "2")]
    assert [version.run_id or None for version in versions] == [run.id, None]
    assert not any(str(home) in version.source for version in versions)


def test_every_line_of_the_gate_is_with_the_versions_run_and_tags(
    redis: Redis, build: Build, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    run = evaluated(fingerprint(report(0.31)))
    promote(build("one", ndcg=0.31), redis, Registry(), ACT)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store()}")
    kept = client.list_artifacts(run.id)
    assert [file.path for file in kept] == ["admission.html", "admission.json"]
    told = orjson.loads((home / ADMISSION).read_bytes())
    assert (told["passed"], told["forced"], told["champion"]) == (True, False, None)
    named = {check["name"] for check in told["checks"]}
    assert {"ndcg_at_12", "latency p99 ms", "size MB", "parity of the replay", "active holdout"} <= named
    version = Registry().holder("champion")
    assert version is not None and set(orjson.loads(version.tags["gate_checks"])) == named
    assert version.tags["gate_told"] == "parity of the replay"


def test_what_only_a_bundle_shows_is_refused_too_and_overruled_with_a_reason_alone(
    redis: Redis, build: Build, home: Path
) -> None:
    champion = promote(build("one"), redis, Registry(), ACT).release
    grown = build("two", items=400)
    with pytest.raises(
        GateError, match=r"gate: size MB is .*, allowed at most .*admission\.html shows every"
    ):
        promote(grown, redis, Registry(), ACT)
    assert state.present(redis).champion == champion and "challenger" not in alias_holders(Registry())
    assert "FAILED by 1</b>" in (home / ADMISSION_PAGE).read_text()
    promote_job.main(grown, direct=False, fix=False, force=True, why="a department more")
    entry = state.read_audit(redis)[0]
    assert entry["why"] == "a department more" and entry["numbers"]["forced"].startswith("size MB is ")


def test_a_slice_that_lost_what_the_champion_found_is_refused_at_the_door(redis: Redis, build: Build) -> None:
    asked = [SimpleNamespace(session_id=f"s{n}", now=n, relevant=frozenset("a")) for n in range(600)]
    half = [{"anonymous": n % 2 == 0, "known_user": n % 2 == 1} for n in range(600)]
    found = np.full(600, 0.3)
    lost = np.where(np.arange(600) % 2, 0.31, 0.0)
    for name, scores in (("one", found), ("two", lost)):
        folder = build(name)
        part = Part.of(asked, "ease", scores, found / 3, half)
        Scores({OURS: part}).write(folder / SCORES.name, fingerprint(report(0.3)))
        if name == "one":
            promote(folder, redis, Registry(), ACT)
    with pytest.raises(GateError, match=r"anonymous NDCG@12 no worse is -0\.3000, needed -0\.03"):
        promote(folder, redis, Registry(), ACT)


def test_the_gate_finds_the_champion_in_the_registry(redis: Redis, build: Build, home: Path) -> None:
    assert champion_report() is None
    done = promote(build("one", ndcg=0.31), redis, Registry(), ACT)
    assert champion_report() == (done.release.digest, report(0.31), home / done.release.path)
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
    with pytest.raises(UnavailableError, match=r"redis://127\.0\.0\.1:1/0 does not answer.*endcap up"):
        promote_job.main()
