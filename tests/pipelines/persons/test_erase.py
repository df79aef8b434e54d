"""A planted person is found everywhere, erased everywhere, and stays out; everybody else stays."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from redis import Redis
from shops.small import open_home
from shops.small_export import event, files, item, run, write

from feature_repo.errors import BusyError, DataError, ParamsError
from feature_repo.eventlog.keys import DEAD, stream_key
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY
from feature_repo.files import reserved
from feature_repo.offline import build
from feature_repo.online.rows import OnlineView, read_rows, write_newer
from feature_repo.params import shop as active
from feature_repo.persons import privacy, tombstones
from feature_repo.persons.pseudonyms import Persons
from feature_repo.places import REWRITING
from pipelines.persons import erase, person, receipt, unfinished, whose
from pipelines.retrain.dvc_cache import undisturbed
from serving.release.state import EXPOSURES, read_audit

ANN, BOB = "ann@shop.example", "bob"
DVC = """
stages:
  ingest: {cmd: "true", deps: [data/export], outs: [data/raw]}
  features:
    cmd: "true"
    deps: [data/raw]
    outs: [data/features/user_history.parquet, data/features/session_context.parquet]
  two_tower: {cmd: "true", deps: [data/raw], outs: [data/models]}
"""


@dataclass
class Shop:
    home: Path
    redis: Any
    persons: Persons

    def names(self, *ids: str) -> list[str]:
        return [self.persons.of(one) for one in ids]

    def erase(self, who: str = ANN) -> receipt.Receipt:
        return erase.erase(who, "a letter", self.redis, self.home.parent / "receipt.json")

    def traces(self, *needles: str) -> list[str]:
        """Places in which any of `needles` stands: bytes of files, values of parquet, all of Redis."""
        pattern, found = re.compile("|".join(map(re.escape, needles)).encode()), []
        for path in (p for p in self.home.rglob("*") if p.is_file()):
            raw = path.read_bytes()
            if raw[:4] == b"PAR1":
                raw = str(pq.read_table(path).to_pydict()).encode()
            found += [str(path)] if pattern.search(raw) else []
        for key in self.redis.scan_iter():
            kind = self.redis.type(key)
            value = {
                b"stream": lambda key: self.redis.xrange(key),
                b"hash": lambda key: self.redis.hgetall(key),
                b"set": lambda key: self.redis.smembers(key),
                b"string": lambda key: self.redis.get(key),
            }[kind](key)
            found += [repr(key)] if pattern.search(key + repr(value).encode()) else []
        return found


def events() -> list[dict[str, Any]]:
    """Ann has two visits of her own, in one of which she is named late, and shares one with Bob."""
    who = [(None, "a1"), (ANN, "a1"), (ANN, "a2"), (ANN, "both"), (BOB, "both"), (BOB, "b1"), (None, "n1")]
    return [
        event(n, event_id=f"{user or visit}-{n}", user_id=user, session_id=visit)
        for n, (user, visit) in enumerate(who)
    ]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder whose stages are all up to date."""
    home = tmp_path_factory.mktemp("imported")
    with pytest.MonkeyPatch.context() as patch:
        open_home(home, patch)
        (home / "data/logs/items").mkdir(parents=True)
        write(home / "data/export", events=events(), items=[item("i1")])
        run(home / "data/export", home / "data", persons=privacy.persons())
        build.main()
    (home / "data/models").mkdir()
    (home / "data/models/weights").write_text("1.5")
    (home / "dvc.yaml").write_text(DVC)
    dvc(home, "init", "-q", "--no-scm")
    dvc(home, "commit", "-q", "-f")
    return home


@pytest.fixture
def shop(imported: Path, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    home = shutil.copytree(imported, tmp_path / "home")
    monkeypatch.setenv("ENDCAP_HOME", str(home))
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(erase, "SETTLES_S", 0.0)
    with Redis.from_url(redis_url) as redis:
        found = Shop(home, redis, privacy.persons())
        live(found)
        yield found


def dvc(home: Path, *words: str) -> str:
    command = (sys.executable, "-m", "dvc", *words)
    return subprocess.run(command, cwd=home, capture_output=True, text=True, check=True).stdout


def live(shop: Shop) -> None:
    """What the running shop has of Ann's third visit and of Bob."""
    for n, (user, visit) in enumerate([(ANN, "a3"), (BOB, "b2")]):
        entry = event(n, event_ts=1, created_ts=1, user_id=user, session_id=visit)
        assert shop.persons.enter(entry)
        names = {name: entry[name] for name in ("user_id", "session_id")}
        shop.redis.xadd(stream_key(0), {"event": orjson.dumps(entry)})
        shop.redis.xadd(DEAD, {"event": orjson.dumps(entry), "reason": "x"})
        shop.redis.xadd(EXPOSURES, {"exposure": orjson.dumps(names | {"unit": names["user_id"]})})
        shop.redis.xadd("endcap:served", {"meta": orjson.dumps(names), "features": b""})
        for fold, key in ((USER_HISTORY, names["user_id"]), (SESSION_CONTEXT, names["session_id"])):
            write_newer(shop.redis, OnlineView(fold), [(key, 1, fold.row(fold.new()))])
    log = shop.home / "run/simulated/logs/service.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"a line about {ANN}, called {shop.persons.of(ANN)}\n")


def test_the_planted_person_is_nowhere_and_others_are_where_they_were(shop: Shop) -> None:
    own = [ANN, *shop.names(ANN, "a1", "a2", "a3")]
    rows = pq.read_table(shop.home / "data/raw/events.parquet").to_pylist()
    assert len(shop.traces(*own)) >= 12
    done = shop.erase()
    assert shop.traces(*own) == []
    left = pq.read_table(shop.home / "data/raw/events.parquet").to_pylist()
    assert left == [
        row
        for row in rows
        if row["user_id"] == shop.persons.of(BOB) or row["session_id"] == shop.persons.of("n1")
    ]
    for fold, key in ((USER_HISTORY, BOB), (SESSION_CONTEXT, "b2")):
        (row,) = read_rows(shop.redis, OnlineView(fold), shop.names(key))
        assert row is not None
    assert shop.redis.xlen(stream_key(0)) == shop.redis.xlen(DEAD) == shop.redis.xlen(EXPOSURES) == 1
    places = {one["place"]: one["rows"] for one in done.places}
    assert places["data/raw/events.parquet"] == 4 and places["Redis endcap:events:0"] == 1
    assert {one["release"] for one in done.fitted} == {"data/models"}
    told = (shop.home.parent / "receipt.json").read_text()
    assert not any(one in told for one in own) and done.why == "a letter"
    assert read_audit(shop.redis)[0]["what"] == "erase"


def test_the_import_made_anew_is_the_one_that_was_cleaned(shop: Shop) -> None:
    shop.erase()
    cleaned = {name: raw for name, raw in files(shop.home / "data/raw").items()}
    write(
        shop.home / "data" / "export", events=events(), items=[item("i1")]
    )  # the shop's export has her still
    run(shop.home / "data/export", shop.home / "data", persons=privacy.persons())
    assert files(shop.home / "data/raw") == cleaned


def test_dvc_is_right_about_what_is_to_be_run_again(shop: Shop) -> None:
    assert shop.erase().run_again == ["features", "two_tower"]
    told = dvc(shop.home, "status", "--json")
    status = orjson.loads(told)
    assert set(status) == {"features", "two_tower"}
    assert status["features"] == [{"changed deps": {"data/raw": "modified"}}]
    assert dvc(shop.home, "status", "ingest").startswith("Data and pipelines are up to date")
    shutil.rmtree(shop.home / "data/raw")
    dvc(shop.home, "checkout", "-q", "-f")  # from a cache without her
    assert not shop.traces(*shop.names(ANN, "a1"))


def test_a_receipt_is_checked_and_a_restored_backup_is_found_and_cleaned(shop: Shop) -> None:
    before = {path: path.read_bytes() for path in (shop.home / "data/raw").glob("*")}
    shop.erase()
    file = shop.home.parent / "receipt.json"
    assert erase.main(None, None, None, file, False) == 0
    for path, raw in before.items():
        path.write_bytes(raw)
    shop.redis.delete(tombstones.ERASED)  # of an older Redis, too
    assert erase.main(None, None, None, file, False) == 1
    assert erase.main(None, None, None, None, True) == 0
    assert erase.main(None, None, None, file, False) == 0
    assert shop.traces(*shop.names(ANN, "a1")) == []


def test_it_does_not_run_beside_a_job_that_would_write_the_rows_again(shop: Shop) -> None:
    before, file = files(shop.home / "data"), shop.home.parent / "receipt.json"
    told = (
        "`endcap erase`: `endcap retrain` is at work on the same files; allowed: one at a time. Next: run it"
    )
    with (
        reserved(active().run_dir() / REWRITING, "`endcap retrain`"),
        pytest.raises(BusyError, match=re.escape(told)),
    ):
        erase.main(ANN, file, "asked for", None, False)
    with undisturbed(), pytest.raises(DataError, match=r"DVC is at work.*run it again when `dvc` has ended"):
        erase.main(ANN, file, "asked for", None, False)  # `dvc repro` by hand
    assert files(shop.home / "data") == before and not file.exists()


def test_twice_is_once_and_an_unknown_person_stays_out_as_well(shop: Shop) -> None:
    shop.erase()
    left = files(shop.home / "data")
    assert shop.erase().places == [] and files(shop.home / "data") == left
    done = shop.erase("never seen")
    assert done.places == [] and len(done.tombstones) == 1
    assert privacy.persons().known("never seen").erased


@pytest.mark.parametrize("step", ["keep", "rewrite", "commit"])
def test_killed_in_the_middle_the_same_command_finishes(
    shop: Shop, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves what was done so far; here an exception that nobody handles does."""

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    where = {"keep": tombstones, "rewrite": erase.online_rows, "commit": erase.stage_outputs}[step]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(where, step, kill)
        shop.erase()
    done = shop.erase()
    own = [ANN, *shop.names(ANN, "a1", "a2", "a3")]
    assert shop.traces(*own) == []
    assert set(done.tombstones) == {shop.persons.tombstone(one) for one in shop.names(ANN, "a1", "a2", "a3")}
    assert set(orjson.loads(dvc(shop.home, "status", "--json"))) == {"features", "two_tower"}
    assert unfinished.changed() == []


@pytest.mark.parametrize("identity", ["a\nb", "a\0b", "x" * 10_000, "", "\x85"])
def test_what_is_no_id_erases_nobody(shop: Shop, identity: str) -> None:
    left = files(shop.home / "data")
    with pytest.raises(ParamsError, match=r"id: .* is none; allowed: a user_id or session_id"):
        shop.erase(identity)
    assert files(shop.home / "data") == left


@pytest.mark.parametrize(
    "identity", ["*", "ann", "ann@shop.exampl", "ANN@shop.example", "../" + ANN, "shop.example"]
)
def test_an_id_like_hers_is_not_hers(shop: Shop, identity: str) -> None:
    assert shop.erase(identity).places == []
    assert person.main(ANN, False) == 0


def test_a_visit_of_a_known_shopper_is_erased_with_the_shopper_only(shop: Shop) -> None:
    with pytest.raises(ParamsError, match="of a visit of a known shopper; allowed: that shopper's"):
        shop.erase("a1")
    assert whose.person("n1", shop.persons, shop.redis).visits == ()
    assert sum(one["rows"] for one in shop.erase("n1").places if one["place"].startswith("data/raw")) == 1


def test_a_receipt_that_is_none_is_refused(tmp_path: Path, shop: Shop) -> None:
    file = tmp_path / "other.json"
    with pytest.raises(DataError, match=r"is missing. Next: name the receipt"):
        receipt.read(file)
    file.write_text('{"receipt": 1}')
    with pytest.raises(DataError, match="no 'shop' in it"):
        receipt.read(file)
    with pytest.raises(ParamsError, match=r"--receipt: .* allowed: a file in a folder that is there"):
        erase.erase(ANN, "why", shop.redis, tmp_path / "no" / "receipt.json")
