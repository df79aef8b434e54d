"""The registry of feature definitions: applied where it is not current, and only there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from feast import FeatureStore
from shops.small import open_home

from feature_repo.features.store import open_store, registry_digest
from feature_repo.features.views import views


def test_the_digest_says_what_is_declared_and_not_when() -> None:
    before = registry_digest(views())
    time.sleep(0.002)
    assert registry_digest(views()) == before


def test_a_registry_that_is_current_is_not_applied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_home(tmp_path, monkeypatch)
    open_store("redis://127.0.0.1:1")
    monkeypatch.setattr(FeatureStore, "apply", lambda *_: pytest.fail("applied again"))
    assert {view.name for view in open_store("redis://127.0.0.1:1").list_feature_views()} == set(views())
