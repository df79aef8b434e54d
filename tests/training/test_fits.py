"""Both fits of a model: side by side or one after the other, told in one order."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from feature_repo.side_by_side import FORKS
from training.dataset import Fit
from training.fits import fitted

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


@pytest.mark.parametrize("processes", [1, 2])
def test_both_fits_are_made_and_told_in_order(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    text = PARAMS.read_text()
    assert text.count("fits:\n  processes: 2") == 1
    (tmp_path / "params.yaml").write_text(
        text.replace("fits:\n  processes: 2", f"fits:\n  processes: {processes}")
    )

    def one(fit: Fit) -> str:
        (tmp_path / fit).write_text(str(os.getpid()))
        return f"model {fit}"

    fitted(one, None)
    assert capsys.readouterr().out.splitlines() == ["model prior", "model final"]
    makers = {int((tmp_path / fit).read_text()) for fit in ("prior", "final")}
    assert len(makers) == (processes if FORKS else 1)


def test_one_fit_is_made_where_the_caller_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    shutil.copy(PARAMS, tmp_path)
    made: list[tuple[Fit, int]] = []
    fitted(lambda fit: made.append((fit, os.getpid())) or fit, "final")
    assert made == [("final", os.getpid())]
