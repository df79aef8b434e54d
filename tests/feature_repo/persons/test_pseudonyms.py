"""Pseudonyms: one per person and key, the same for an event and a table, and never somebody else's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from shops.small import open_home
from shops.small_export import event, files, item, run, write

from feature_repo.errors import ParamsError
from feature_repo.events import SCHEMA, is_id
from feature_repo.persons import privacy, tombstones
from feature_repo.persons.pseudonyms import Persons

SHOP = Persons(b"a key")
IDS = st.text(min_size=1, max_size=40)


@settings(deadline=None)
@given(IDS, IDS)
def test_two_ids_are_two_pseudonyms_each_an_id_that_stays_as_it_is(one: str, other: str) -> None:
    first, second = SHOP.of(one), SHOP.of(other)
    assert (first == second) == (one == other)
    assert is_id(first) and SHOP.of(first) == first and SHOP.tokens(f"a {first}.".encode()) == {first}
    assert Persons(b"another").of(first) != first  # another shop's is an id like any


def test_unicode_forms_control_characters_and_length_are_told_apart() -> None:
    hostile = ["caf\u00e9", "cafe\u0301", "a\nb", "a\0b", "a", "x" * 10_000, "\ud800", "*", "p-" + "0" * 32]
    assert len({SHOP.of(one) for one in hostile}) == len(hostile)
    assert not {SHOP.of(one) for one in hostile} & set(hostile)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ann", "bob", None]), st.sampled_from(["v1", "v2"]))))
def test_a_table_and_its_events_one_by_one_are_the_same(who: list[tuple[str | None, str]]) -> None:
    persons = Persons(b"a key", erased=[SHOP.tombstone(SHOP.of("bob")), SHOP.tombstone(SHOP.of("v2"))])
    rows = [event(n, user_id=user, session_id=visit) for n, (user, visit) in enumerate(who)]
    rows = [row | {"event_id": f"{row['session_id']}:{n}"} for n, row in enumerate(rows)]
    kept = persons.table(pa.Table.from_pylist(rows, SCHEMA)).to_pylist()
    one_by_one: list[dict[str, Any]] = [dict(row) for row in rows]
    entered = [row for row in one_by_one if persons.enter(row)]
    names = ("event_id", "user_id", "session_id")
    assert [[row[name] for name in names] for row in kept] == [
        [row[name] for name in names] for row in entered
    ]
    told = str([list(row.values()) for row in kept])
    assert "ann" not in told and "v1" not in told


def test_whoever_is_erased_asks_as_nobody_and_others_as_before() -> None:
    persons = Persons(b"a key", erased=[SHOP.tombstone(SHOP.of("bob"))])
    assert persons.asking("bob", "v1") == (None, None)
    assert persons.asking("ann", "v1") == (SHOP.of("ann"), SHOP.of("v1"))
    persons.erased = persons.erased | {SHOP.tombstone(SHOP.of("v1"))}
    assert persons.asking(None, "v1") == (None, None)
    assert persons.asking("ann", "v1") == (SHOP.of("ann"), None)


def test_a_region_stands_before_each_pseudonym_and_without_a_key_ids_stay() -> None:
    assert Persons(b"a key", "eu").of("ann").startswith("eu-")
    assert Persons().of("ann") == "ann" and Persons().enter({"user_id": "ann"})
    named = Persons(b"a key", hides=False, erased=[SHOP.tombstone("bob")])
    assert named.of("ann") == "ann" and not named.enter({"user_id": "bob", "session_id": "v"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a shop whose shoppers are people: the key of simulated ones is known."""
    monkeypatch.delenv(privacy.VARIABLE, raising=False)
    home = open_home(tmp_path, monkeypatch)
    params = (home / "params.yaml").read_text()
    (home / "params.yaml").write_text(params.replace("\nshop: simulated\n", "\nshop: merch\n"))
    return home


def test_the_key_is_made_once_for_its_owner_alone(home: Path) -> None:
    assert privacy.persons().of("ann") == privacy.persons().of("ann") != "ann"
    file = privacy.key_file()
    assert file.stat().st_mode & 0o777 == 0o600 and not file.is_relative_to(home / "data")
    file.chmod(0o644)
    with pytest.raises(ParamsError, match=r"mode 044 lets others in; allowed: 600. Next: chmod 600"):
        privacy.persons()
    file.chmod(0o600)
    file.write_text("")
    with pytest.raises(ParamsError, match="empty; allowed: the key"):
        privacy.persons()


def test_a_lost_key_is_told_before_everybody_is_a_stranger(home: Path, tmp_path: Path) -> None:
    persons = privacy.persons()
    export = write(tmp_path / "export", events=[event(1, user_id="ann-77")], items=[item("i1")])
    run(export, home / "data", persons=persons)
    assert b"ann-77" not in b"".join(files(home / "data").values())
    key = privacy.key_file().read_text()
    privacy.key_file().unlink()
    with pytest.raises(ParamsError, match=r"allowed: that key. Next: put it back"):
        privacy.persons()
    assert not privacy.key_file().exists()
    os.environ[privacy.VARIABLE] = "another"
    try:
        with pytest.raises(ParamsError, match="not the key of the pseudonyms in data/raw"):
            privacy.persons()
        os.environ[privacy.VARIABLE] = key
        assert privacy.persons().of("ann") == persons.of("ann")
    finally:
        del os.environ[privacy.VARIABLE]


def test_an_import_leaves_the_erased_out_and_hides_refused_ids(home: Path, tmp_path: Path) -> None:
    rows = [event(1, user_id="ann"), event(2, user_id="bob", session_id="s2"), event(3, session_id="s2")]
    refused = event(4, user_id="eve\n1234", session_id="s3")
    export = write(tmp_path / "export", events=[*rows, refused], items=[item("i1")])
    persons = privacy.persons()
    tombstones.keep([persons.tombstone(persons.of(one)) for one in ("bob", "s2")])
    run(export, home / "data", persons=privacy.persons())
    kept = pq.read_table(home / "data/raw/events.parquet").to_pylist()
    assert [row["user_id"] for row in kept] == [persons.of("ann")]
    (value,) = pq.read_table(home / "data/quarantine/events.parquet")["value"].to_pylist()
    assert value == persons.of("eve\n1234")


def test_a_tombstone_in_one_place_is_in_all_after_the_next_keeping(home: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.sadd(tombstones.ERASED, "aa")
        beside, travels = tombstones.files()
        travels.parent.mkdir(parents=True)
        travels.write_text("bb\n")
        assert tombstones.keep(["cc"], redis) == {"aa", "bb", "cc"} == tombstones.read()
        assert beside.read_text() == travels.read_text() == "aa\nbb\ncc\n"
        assert redis.smembers(tombstones.ERASED) == {b"aa", b"bb", b"cc"}
