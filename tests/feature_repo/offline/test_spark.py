"""Spark, the real one on two cores: rows, answers and query points are those of the embedded engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from shops.offline import ASOF, SPARK, Pair, Question, Shop, Wide
from shops.small import ITEMS, START, open_home, random_events, write_raw

from feature_repo.assemble.matrix import ACTIVITY
from feature_repo.clock import DAY_US, instant
from feature_repo.features.catalogue import DECLARED
from feature_repo.features.store import open_store
from feature_repo.features.stored import USER_HISTORY
from feature_repo.features.views import ITEMS as ITEM_VIEWS
from feature_repo.features.views import VISITOR
from feature_repo.offline.build import main as features
from feature_repo.offline.timeline import historical, matrix_at
from feature_repo.online.rows import OnlineView
from feature_repo.params import home
from feature_repo.places import feature_file
from pipelines.protocol.known import query_points
from pipelines.stream.materialize import latest

pytest.importorskip(
    "pyspark", reason="pyspark is not installed; `make spark` installs it and runs these tests"
)
ENGINES = ("embedded", "spark")


def events() -> list[dict[str, Any]]:
    """Random ones; every third visit is nameless for the first days, so that a login brings some."""
    found = random_events(seed=11, count=900)
    for event in found:
        nameless = int(event["session_id"].split()[1]) % 3 == 0 and event["event_ts"] < START + 4 * DAY_US
        event |= {"user_id": None} if nameless else {}
    return found


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The same shop computed by each engine: folder by engine. Small slices, so that there are many."""
    found = {}
    for engine in ENGINES:
        with pytest.MonkeyPatch.context() as patch:
            folder = found[engine] = open_home(tmp_path_factory.mktemp(engine), patch)
            params = yaml.safe_load((folder / "params.yaml").read_text())
            params["offline"] = engine
            params["features"]["slice_events"] = 150
            params["shops"]["simulated"] |= {
                f"{name}_from": instant(START + days * DAY_US).isoformat()
                for name, days in (("rank", 2), ("valid", 6), ("test", 9))
            }
            (folder / "params.yaml").write_text(yaml.safe_dump(params))
            patch.chdir(folder)
            write_raw(folder, events())
            features()
    return found


def rows(folder: Path, view: str, key: str) -> pa.Table:
    with home(folder):
        return pq.read_table(feature_file(view)).sort_by(
            [(key, "ascending"), ("event_timestamp", "ascending")]
        )


@pytest.mark.parametrize("fold", DECLARED, ids=lambda fold: fold.name)
def test_every_stored_row_is_the_embedded_engine_s_bit_for_bit(homes: dict[str, Path], fold: Any) -> None:
    ours, theirs = (rows(homes[engine], fold.name, fold.key) for engine in ENGINES)
    assert len(ours) and ours.schema == theirs.schema
    for name in ours.column_names:
        assert ours[name].equals(theirs[name]), name  # floats as well: no tolerance
    if fold is not DECLARED[-1]:
        assert len(list((homes["spark"] / f"data/features/{fold.name}.parquet").iterdir())) > 1, (
            "one slice only"
        )


def test_a_login_brought_a_shopper_earlier_contacts(homes: dict[str, Path]) -> None:
    """Without such rows the equality above would say nothing of adoption."""
    held = rows(homes["spark"], USER_HISTORY.name, USER_HISTORY.key)
    named = {(e["user_id"], e["event_ts"]) for e in events() if e["user_id"]}
    recent = zip(held["user_id"].to_pylist(), held["recent_ts"].to_pylist(), strict=True)
    assert any((user, ts) not in named for user, stamps in recent for ts in stamps)


def test_historical_answers_are_the_same_in_values_types_and_order(homes: dict[str, Path]) -> None:
    rng = np.random.default_rng(3)
    users = ["user 2", "user 3", None, "nobody", "user 2"] * 8
    sessions = ["session 2", "session 3", "session 0", None, "session 16"] * 8
    instants = rng.integers(START - DAY_US, START + 14 * DAY_US, 38).tolist()
    instants += [events()[400]["event_ts"], START + 400 * DAY_US]  # exactly at an event; all is too old
    asked = pd.DataFrame(
        {"user_id": users, "session_id": sessions, "event_timestamp": map(instant, instants)}
    )
    answers = []
    for engine in ENGINES:
        with home(homes[engine]):
            answers.append((historical(asked, "visitor"), matrix_at([*ITEMS, "untouched"], instants[7])))
    (ours, items), (theirs, others) = answers
    for view in VISITOR:
        assert ours[view].tolist() == theirs[view].tolist()
        assert 4 < ours[view].notna().sum() < len(ours)
    for name in ACTIVITY:
        np.testing.assert_array_equal(items.activity[name], others.activity[name], name)
    np.testing.assert_array_equal(items.price, others.price)
    assert ITEM_VIEWS == ("item_activity", "item_catalogue")


def test_what_materialize_reads_is_the_same(homes: dict[str, Path]) -> None:
    for fold in DECLARED:
        found = []
        for engine in ENGINES:
            with home(homes[engine]):
                end = instant(START + 7 * DAY_US)
                found.append(latest(open_store(), OnlineView(fold), end).sort_by(fold.key))
        assert len(found[0]) and found[0].to_pylist() == found[1].to_pylist()


@pytest.mark.parametrize("limit", [None, 7, 10_000])
def test_the_same_query_points_are_drawn(homes: dict[str, Path], limit: int | None) -> None:
    found = []
    for engine in ENGINES:
        with home(homes[engine]):
            rng = np.random.default_rng(5)
            for start, end in ((START, None), (START + DAY_US, START + 3 * DAY_US)):
                end = None if end is None else instant(end)
                found.append(query_points(instant(start), end, limit, rng))
    assert found[:2] == found[2:] and len(found[0]) > 5


@pytest.mark.parametrize("ttl_hours", [0, 5])
@pytest.mark.parametrize("learned", [False, True])
def test_ties_late_rows_gaps_and_ages_are_answered_as_by_the_asof_store(
    tmp_path: Path, ttl_hours: int, learned: bool
) -> None:
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    on_spark = partial(SparkSource, file_format="parquet")
    for kind in (ASOF, SPARK):
        (tmp_path / kind).mkdir()
    shops = [
        Shop(tmp_path / ASOF, ttl_hours, kinds=[ASOF]),
        Shop(tmp_path / SPARK, ttl_hours, source=on_spark, kinds=[SPARK]),
    ]
    rng = np.random.default_rng(1)
    users = ["a", "b", None]
    drawn = {(str(rng.choice(["a", "b"])), float(rng.integers(0, 9)), i % 7 or None) for i in range(40)}
    wide = [Wide(*row, count=i if i % 5 else None) for i, row in enumerate(sorted(drawn, key=str))]
    pair = [Pair(users[i % 3], [1, 2, None][i % 2], hour) for i, hour in enumerate(range(12))]
    asked = [Question(users[i % 3], [1, 2, None][i % 3], i % 13, users[(i + 1) % 3]) for i in range(26)]
    answers = []
    for shop, kind in zip(shops, (ASOF, SPARK), strict=True):
        shop.write([*wide, Wide(None, 1, 1, 99)], pair)
        answers.append(shop.ask(kind, asked, service=True, filter_by_created_timestamp=learned))
        assert [row["label"] for row in answers[-1]] == list(range(len(asked)))
    names = [name for name in answers[0][0] if "__" in name]
    assert [[row[n] for n in names] for row in answers[0]] == [[row[n] for n in names] for row in answers[1]]
    assert any(row["own__count"] for row in answers[0]) and any(row["pair__weight"] for row in answers[0])


def test_the_same_input_gives_the_same_bytes_and_leaves_nothing_beside_them(
    homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = homes["spark"]
    monkeypatch.chdir(folder)
    parts = sorted((folder / "data/features").rglob("*.parquet"))
    before = {path: path.read_bytes() for path in parts if path.is_file()}
    with home(folder):
        features()
    assert before == {path: path.read_bytes() for path in parts if path.is_file()}
    assert {path.name for path in folder.iterdir()} <= {
        "data",
        "params.yaml",
        "run",
    }  # no metastore, no derby.log
    assert {path.suffix for path in (folder / "data/features").rglob("*") if path.is_file()} == {".parquet"}


def test_one_engine_s_files_make_way_for_the_other_s(tmp_path: Path, homes: dict[str, Path]) -> None:
    text = (homes["spark"] / "params.yaml").read_text()
    write_raw(tmp_path, events()[:40])
    for engine, is_folder in (("spark", True), ("embedded", False), ("spark", True)):
        (tmp_path / "params.yaml").write_text(text.replace("offline: spark", f"offline: {engine}"))
        os.utime(tmp_path / "params.yaml", ns=(0, len(engine) * 1_000 + is_folder))
        with home(tmp_path):
            features()
            assert feature_file("user_history").is_dir() is is_folder
            assert len(pq.read_table(feature_file("user_history")))


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (
            "pyspark",
            "needs the package pyspark, which is missing; run `pip install -r requirements-spark.txt`",
        ),
        ("java", "found no Java that starts it"),
    ],
)
def test_what_is_missing_is_said_with_what_to_install(
    homes: dict[str, Path], missing: str, told: str
) -> None:
    hide = "import sys; sys.modules['pyspark'] = None; " if missing == "pyspark" else ""
    code = f"{hide}import sys; sys.argv = ['endcap', 'features']; from pipelines.cli import main; main()"
    env = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    env |= {"ENDCAP_HOME": str(homes["spark"]), "PATH": "/nowhere" if missing == "java" else env["PATH"]}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    said = " ".join((ended.stdout + ended.stderr).split())
    assert told in said and "or set `offline: embedded` in params.yaml" in said and "Traceback" not in said
