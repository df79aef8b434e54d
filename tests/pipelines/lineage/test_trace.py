"""`endcap trace`: from an answer to its release, runs and data, and back; Redis, files, MLflow are real."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from shops.release import ACT, SPAN, open_home, write_candidate

from feature_repo.errors import DataError
from feature_repo.params import home as standing_in
from feature_repo.places import EVENTS, at
from monitoring.experiment import feedback
from pipelines import cli
from pipelines.lineage import answers
from pipelines.lineage.trace import lines, released, trace
from pipelines.release.promote import promote
from pipelines.release.registry import Registry
from serving.release import state as control
from serving.release.state import Release
from training.tracking import evaluated, tracked

NOON = 1_772_452_800_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path, redis_url: str) -> Path:
    return open_home(tmp_path, monkeypatch, empty_registry, redis_url)


@pytest.fixture
def redis(home: Path, redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def release(home: Path, redis: Redis) -> Release:
    """Promoted; of its models, ALS was fitted for an evaluation before, and the ranker for its own."""
    events = at(EVENTS)
    events.parent.mkdir(parents=True)
    events.write_bytes(b"events")
    (home / "dvc.lock").write_text("schema: '2.0'\n")
    with tracked("als final", {}, [events], "none: raw contacts"):
        pass
    evaluated("an earlier one")
    with tracked("ranker", {}, [events], "ranker"):
        pass
    span = {"from": SPAN["from"], "until": SPAN["to"]}
    candidate = write_candidate(home, "one", data_span=span, revision={"git": "f" * 40})
    evaluated(orjson.loads((candidate / "manifest.json").read_bytes())["gate"]["evaluation"])
    return promote(candidate, redis, Registry(), ACT).release


def show(redis: Redis, n: int, bundle: str, **changes: Any) -> str:
    record = {"request_id": f"{n:032x}", "ts": NOON + n, "arm": "champion", "bundle": bundle}
    record |= {"surface": "pdp_fbt", "user_id": "U1", "session_id": None, "unit": "U1", "version": 1}
    record |= {"items": ["item-1", "item-2"], "tail": False, "propensity": 1.0} | changes
    redis.xadd(control.EXPOSURES, {"exposure": orjson.dumps(record)})
    return str(record["request_id"])


def test_an_answer_is_traced_to_arm_release_runs_data_and_service(redis: Redis, release: Release) -> None:
    for n in range(5_000):  # more than one batch is read
        show(redis, n, "0" * 16) if n < 5 or n > 4_990 else None
    asked = show(redis, 77, release.digest, rules="v3")
    told = trace(redis, asked)
    assert (told["answer"]["arm"], told["on_record_in"]) == ("champion", "endcap:exposures")
    assert (told["change"]["what"], told["change"]["who"], told["change"]["why"]) == (
        "install",
        "pat",
        "a test",
    )
    found = told["release"]
    assert found["data_span"] == {"from": SPAN["from"], "until": SPAN["to"]}
    assert (found["git"], found["feature_service"], found["mlflow_version"]) == ("f" * 40, "ranking_v1", "1")
    fits = {fit["model"]: fit for fit in found["fits"]}
    assert list(fits) == ["als final", "ranker"]  # the first of the run that the release continues
    assert fits["als final"]["inputs"] == {"events.parquet": "16908b0605f2645dfcb4c3a8d248cef3"}
    assert all(len(fit["dvc.lock"]) == 32 for fit in fits.values())
    text = "\n".join(lines(told))
    assert all(len(line) <= 80 for line in text.split("\n"))
    for word in (asked, release.digest, "user_id U1", "rules v3", "item-1, item-2", fits["ranker"]["run"]):
        assert word in text


def test_a_release_tells_which_answers_it_gave_by_arm_and_surface(redis: Redis, release: Release) -> None:
    for n in range(7):
        show(redis, n, release.digest, arm="challenger" if n < 2 else "champion")
    show(redis, 8, release.digest, surface="cart_addons")
    show(redis, 9, "0" * 16)
    told = released(redis, release.digest[:6])
    rows = {(row["arm"], row["surface"]): row for row in told["answers"]["endcap:exposures"]}
    assert {key: row["answers"] for key, row in rows.items()} == {
        ("champion", "pdp_fbt"): 5,
        ("challenger", "pdp_fbt"): 2,
        ("champion", "cart_addons"): 1,
    }
    most = rows["champion", "pdp_fbt"]
    assert (most["first_us"], most["last_us"]) == (NOON + 2, NOON + 6)
    assert most["request_ids"] == [f"{n:032x}" for n in (6, 5, 4)]
    assert all(len(line) <= 80 for line in lines(told))


def test_what_the_log_forgot_is_found_in_the_files(redis: Redis, release: Release) -> None:
    asked = show(redis, 3, release.digest)
    feedback.main()
    redis.delete(control.EXPOSURES)
    told = trace(redis, asked)
    assert told["on_record_in"] == str(answers.SLOTS)
    assert (told["answer"]["items"], told["answer"]["ts"]) == (["item-1", "item-2"], NOON + 3)
    assert told["change"] is None
    (row,) = released(redis, release.digest)["answers"][str(answers.SLOTS)]
    assert (row["answers"], row["request_ids"]) == (1, [asked])


def test_an_id_that_is_on_no_record_is_told_what_is_kept_and_for_how_long(redis: Redis) -> None:
    show(redis, 1, "0" * 16)
    with pytest.raises(
        DataError, match=r"keeps the newest 2,000,000 answers, now 1 since .*slots.parquet is not"
    ):
        trace(redis, "e" * 32)
    with pytest.raises(DataError, match=r"no release, and no answers: .*endcap rollout history"):
        released(redis, "eeee")


@pytest.mark.parametrize("wrong", ["", "zz", "e" * 31, "../../etc", "e" * 32 + "\n", "\x1b[31m"])
def test_what_is_no_id_is_refused_before_it_is_searched(redis: Redis, wrong: str) -> None:
    with pytest.raises(DataError, match="give the 32 to 256 letters, digits, - and _") as found:
        trace(redis, wrong)
    assert str(found.value).isprintable()
    with pytest.raises(DataError, match="give 4 to 16 hex digits"):
        released(redis, wrong)


def test_a_deleted_bundle_and_a_lost_store_leave_what_is_known(
    redis: Redis, release: Release, home: Path
) -> None:
    asked = show(redis, 1, release.digest)
    shutil.rmtree(home / release.path)
    found = trace(redis, asked)["release"]
    assert found["folder"] == "deleted; MLflow keeps its version"
    assert (found["ndcg_at_12"], found["mlflow_version"]) == ("0.300000", "1")
    other = home / "other"
    (other / "run" / "simulated" / "mlflow.db").mkdir(parents=True)
    shutil.copy(home / "params.yaml", other)
    with standing_in(other):
        told = trace(redis, asked)
    assert "cannot open" in told["release"]["trouble"]
    assert release.digest in "\n".join(lines(told))


def test_the_job_prints_json_and_wants_exactly_one_question(
    redis: Redis, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = show(redis, 1, release.digest)
    assert cli.run(["trace", asked, "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)["answer"]["request_id"] == asked
    assert cli.run(["trace"]) == 2
    assert cli.run(["trace", asked, "--bundle", "aaaa"]) == 2
    assert cli.run(["rollout", "history"]) == 0
    assert capsys.readouterr().out.startswith(f"{release.digest}  NDCG@12 0.300")
