"""The folder list is the architecture: who may import whom, how long a file is, who owns a heavy library."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "feature_repo": set(),
    "training": {"feature_repo"},
    "serving": {"feature_repo"},
    "monitoring": {"feature_repo", "serving"},
    "pipelines": {"feature_repo", "training", "serving", "monitoring"},
}
MAX_LINES = 300
VAGUE = {"utils", "util", "common", "core", "helpers", "helper", "manager", "misc"}
# One module per package imports each of these, so that replacing or upgrading one is a change in one place.
HEAVY = {"torch", "mlflow", "bentoml", "feast", "evidently", "great_expectations", "implicit", "lightgbm"}
# Modules that share one library because their subject is that library's own object.
SHARED = {
    ("training", "torch"): "the towers and their training loop",
    ("feature_repo", "feast"): "the folder is a Feast repository",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import statement with each absolute module that it names; also those inside functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield node, ".".join((*base, *([node.module] if node.module else [])))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_stands_left_of_it(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
        for path in modules(package)
        for node, name in imports(path)
        if name.partition(".")[0] in set(MAY_IMPORT) - allowed
    ]
    assert not wrong


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_star_import_and_no_relative_import_leaves_its_folder(package: str) -> None:
    wrong = []
    for path in modules(package):
        for node, name in imports(path):
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            if any(alias.name == "*" for alias in node.names):
                wrong.append(f"{where} star import of {name}")
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                wrong.append(f"{where} relative import of {name}")
    assert not wrong


def test_no_python_file_is_longer_than_a_reader_can_hold() -> None:
    folders = (*MAY_IMPORT, "tests", "benchmarks")
    lengths = {p: len(p.read_text().splitlines()) for folder in folders for p in modules(folder)}
    assert len(lengths) > 20
    assert not {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MAX_LINES}


def test_file_names_are_nouns_of_the_domain() -> None:
    assert not [p for package in MAY_IMPORT for p in modules(package) if p.stem in VAGUE]


def test_a_heavy_library_has_one_owner_per_package() -> None:
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    for package in MAY_IMPORT:
        for path in modules(package):
            for _, name in imports(path):
                library = name.partition(".")[0]
                if library in HEAVY:
                    owners[package, library].add(str(path.relative_to(ROOT)))
    crowded = {key: sorted(files) for key, files in owners.items() if len(files) > 1 and key not in SHARED}
    assert not crowded


def test_serving_does_not_need_torch() -> None:
    assert not [str(p) for p in modules("serving") for _, name in imports(p) if name.startswith("torch")]


def test_every_package_is_installed_and_no_test_folder_shadows_one() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    folders = {p.parent for package in MAY_IMPORT for p in modules(package)}
    for folder in folders:
        assert f'"{".".join(folder.relative_to(ROOT).parts)}"' in pyproject, folder
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_data_holds_no_code() -> None:
    assert not [p for p in (ROOT / "data").glob("*.py")]


def test_a_module_imported_relatively_is_resolved_to_its_package() -> None:
    node = ast.parse("from ..serving import router").body[0]
    assert isinstance(node, ast.ImportFrom) and node.level == 2  # the level that the check above refuses
