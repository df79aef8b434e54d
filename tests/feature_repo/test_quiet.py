"""Libraries are silent unless a person says otherwise."""

from __future__ import annotations

import pytest

from feature_repo.quiet import SWITCHES, hush


def test_silence_is_the_default_and_a_choice_made_by_hand_stays() -> None:
    environ = {"HF_HUB_OFFLINE": "0"}
    hush(environ)
    assert environ == {**SWITCHES, "HF_HUB_OFFLINE": "0"}
    hush(environ)
    assert environ["DO_NOT_TRACK"] == "true"


def test_every_library_reads_the_switch_that_is_set_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SWITCHES.items():
        monkeypatch.setenv(name, value)
    from bentoml._internal.utils.analytics import usage_stats
    from dvc import analytics
    from mlflow.telemetry.utils import is_telemetry_disabled

    usage_stats.do_not_track.cache_clear()
    assert usage_stats.do_not_track()
    assert not analytics.is_enabled()
    assert is_telemetry_disabled()
