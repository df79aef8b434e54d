"""Pictures hold names from outside as they are."""

from __future__ import annotations

import ast
from pathlib import Path

from feature_repo.picture import Figure

ROOT = Path(__file__).resolve().parents[2]


def test_a_name_with_dollars_is_no_formula(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.barh(["$\\foo{$", "10 $ or 12 $"], [1, 2])
    axes.set_title("$\\frac$")
    figure.savefig(tmp_path / "dollars.png")
    assert axes.get_title() == "$\\frac$" and not axes.title.get_parse_math()


def test_every_picture_is_drawn_by_that_figure() -> None:
    packages = ("feature_repo", "training", "serving", "monitoring", "pipelines")
    users = {
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in ("matplotlib.figure", "matplotlib.pyplot")
    }
    assert users == {"feature_repo/picture.py"}
