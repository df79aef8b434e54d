"""A project folder with an empty registry, its Redis, and who makes release candidates there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from shops.release import Build, open_home, write_candidate


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path, redis_url: str) -> Path:
    return open_home(tmp_path, monkeypatch, empty_registry, redis_url)


@pytest.fixture
def redis(home: Path, redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def build(home: Path) -> Build:
    return partial(write_candidate, home)
