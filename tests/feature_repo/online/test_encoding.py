"""Keys and values are Feast's own, byte by byte, and a worker of the service gets by without Feast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key, serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, StringList
from feast.protos.feast.types.Value_pb2 import Value as FeastValue
from hypothesis import given
from hypothesis import strategies as st
from shops.small import open_home

from feature_repo.features.catalogue import DECLARED
from feature_repo.features.store import open_store
from feature_repo.online.encoding import (
    FIELDS,
    LISTS,
    PROJECT,
    Value,
    entity_key,
    entity_of,
    field_of,
    key_prefix,
)
from feature_repo.online.rows import OnlineView

FEASTS = {"list<string>": StringList, "list<int64>": Int64List}
LONG = st.integers(-(2**63), 2**63 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": WORDS,
    "int64": LONG,
    "float64": st.floats(allow_nan=False),
    "list<string>": st.lists(WORDS),
    "list<int64>": st.lists(LONG),
}


@given(join_key=st.sampled_from(["user_id", "session_id", "item_id"]), entity=WORDS)
def test_a_key_is_the_one_that_feast_makes_and_is_read_back(join_key: str, entity: str) -> None:
    of_feast = EntityKey(join_keys=[join_key], entity_values=[FeastValue(string_val=entity)])
    key = entity_key(join_key, entity)
    assert key == serialize_entity_key(of_feast, entity_key_serialization_version=3)
    assert key.startswith(key_prefix(join_key)) and key_prefix(join_key) == serialize_entity_key_prefix(
        [join_key]
    )
    assert entity_of(join_key, key) == entity


@pytest.mark.parametrize("dtype", FIELDS)
@given(data=st.data())
def test_a_value_is_written_as_feast_writes_it_and_either_reads_the_others(dtype: str, data: Any) -> None:
    value, name = data.draw(VALUES[dtype]), FIELDS[dtype][0]
    ours = Value(**{name: LISTS[dtype](val=value) if dtype in LISTS else value}).SerializeToString()
    held = FeastValue(**{name: FEASTS[dtype](val=value) if dtype in FEASTS else value})
    assert ours == held.SerializeToString()
    read = getattr(Value.FromString(ours), name)
    assert (read.val[:] if dtype in LISTS else read) == value


def test_every_column_has_a_type_that_feast_has_and_its_field() -> None:
    for declared in DECLARED:
        fields = OnlineView(declared).fields
        for column, field in zip(declared.columns, fields, strict=False):
            assert column.dtype in FIELDS
            assert field == field_of(declared.name, column.name) == _mmh3(f"{declared.name}:{column.name}")


def test_the_project_is_that_of_the_feature_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    open_home(tmp_path, monkeypatch)
    assert open_store(redis_url).project.encode() == PROJECT


@pytest.mark.parametrize(
    "module", ["serving.service", "pipelines.stream.consumer", "pipelines.newborn.newcomers"]
)
def test_who_serves_or_follows_the_stream_loads_neither_feast_nor_torch(module: str) -> None:
    heavy = ("feast", "torch", "lightgbm", "sklearn", "mlflow")
    said = f"import sys, {module}; print([one for one in {heavy} if one in sys.modules])"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout.strip().splitlines()[-1] == "[]"
