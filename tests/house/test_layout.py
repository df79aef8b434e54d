"""The folder list is the architecture: the rooms, who may import whom, who owns a library."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "feature_repo": set(),
    "training": {"feature_repo"},
    "serving": {"feature_repo"},
    "monitoring": {"feature_repo", "serving"},
    "pipelines": {"feature_repo", "training", "serving", "monitoring"},
}
MAX_LINES, MAX_FILES, MIN_FILES = 300, 12, 3
VAGUE = {"utils", "util", "common", "core", "helpers", "helper", "manager", "misc"}
# A name that stands twice on purpose: the release as it is made and as it is served; settings and errors of
# serving, beside those of every package; who answers a storefront, and the demo shop that is one.
TWICE = {"bundle", "params", "errors", "storefront"}
# One module per package imports each of these, so that replacing or upgrading one is a change in one place.
HEAVY = {
    *("torch", "mlflow", "bentoml", "feast", "evidently", "great_expectations", "implicit", "lightgbm"),
    *("xgboost", "pyspark"),
}
# Modules that share one library because their subject is that library's own object.
SHARED = {
    ("training", "torch"): "the towers and their training loop",
    ("feature_repo", "feast"): "the folder is a Feast repository",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def modules(package: str) -> tuple[Path, ...]:
    return tuple(sorted((ROOT / package).rglob("*.py")))


def ours() -> list[Path]:
    return [path for package in MAY_IMPORT for path in modules(package)]


def rooms() -> dict[Path, list[Path]]:
    """Folder -> its modules; also the packages themselves, whose files are doors and types."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for path in ours():
        if path.stem != "__init__":
            found[path.parent].append(path)
    return found


def imports(path: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import statement with each absolute module that it names; also those inside functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield node, ".".join((*base, *([node.module] if node.module else [])))


@cache
def imported(path: Path) -> frozenset[Path]:
    """Our modules that `path` imports, wherever in the file; `from room import part` names the part."""
    names: set[str] = set()
    for node, name in imports(path):
        names.add(name)
        if isinstance(node, ast.ImportFrom):
            names |= {f"{name}.{alias.name}" for alias in node.names}
    found = (ROOT / (name.replace(".", "/") + ".py") for name in names if name.split(".")[0] in MAY_IMPORT)
    return frozenset(other for other in found if other.exists())


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


def test_no_module_imports_itself_by_a_detour() -> None:
    order = list(TopologicalSorter({path: imported(path) for path in ours()}).static_order())
    assert len(order) > 150  # a circle raises CycleError, which names its modules


def test_no_room_imports_upwards() -> None:
    """Rooms have floors. A package's own files are its doors, above the rooms, or its types, below them."""
    below: dict[Path, set[Path]] = defaultdict(set)
    packages = {ROOT / package for package in MAY_IMPORT}
    for path in ours():
        for other in imported(path):
            if not {path.parent, other.parent} & packages and path.parent != other.parent:
                below[path.parent].add(other.parent)
    floors = list(TopologicalSorter(below).static_order())  # raises CycleError, which names the rooms
    assert len(floors) > 20


def test_a_room_can_be_taken_in_at_a_glance() -> None:
    packages = {ROOT / package for package in MAY_IMPORT}
    sizes = {str(room.relative_to(ROOT)): len(files) for room, files in rooms().items()}
    assert not {room: n for room, n in sizes.items() if n > MAX_FILES}
    inner = {str(room.relative_to(ROOT)) for room in rooms() if room not in packages}
    assert not {room: sizes[room] for room in inner if sizes[room] < MIN_FILES}


def test_no_file_name_occurs_twice() -> None:
    names = Counter(path.stem for files in rooms().values() for path in files)
    assert {name for name, count in names.items() if count > 1} <= TWICE
    assert all(names[name] == 2 for name in TWICE)


def test_no_python_file_is_longer_than_a_reader_can_hold() -> None:
    folders = (*MAY_IMPORT, "tests", "benchmarks")
    lengths = {p: len(p.read_text().splitlines()) for folder in folders for p in modules(folder)}
    assert len(lengths) > 20
    assert not {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MAX_LINES}


def test_the_tree_of_exceptions_has_each_of_ours_and_where_it_is() -> None:
    home = ROOT / "feature_repo" / "errors.py"
    classes = [(path, node) for path in ours() for node in tree(path).body if isinstance(node, ast.ClassDef)]
    known, before = {"EndcapError"}, 0
    while len(known) > before:  # the subclasses of what is known
        before = len(known)
        known |= {c.name for _, c in classes if {ast.unparse(base) for base in c.bases} & known}
    found = {
        (node.name, "" if path == home else str(path.relative_to(ROOT)))
        for path, node in classes
        if node.name in known - {"EndcapError"}
    }
    lines = (ast.get_docstring(tree(home)) or "").splitlines()
    rows = [line.split("── ")[1].split() for line in lines if "──" in line]
    assert {(row[0], row[-1] if row[-1].endswith(".py") else "") for row in rows} == found


def test_the_code_grows_no_further() -> None:
    """Whoever takes some away lowers this bound; only what Endcap could not do before may raise it."""
    assert sum(len(path.read_text().splitlines()) for path in ours()) <= 53_111


def test_file_names_are_nouns_of_the_domain() -> None:
    assert not [path for path in ours() if path.stem in VAGUE]


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


def test_typer_is_known_to_the_jobs_alone() -> None:
    """A job is the file that `endcap` calls: everything else is called with values, not with options."""
    from pipelines import cli

    jobs = {ROOT / f"{place.split(':')[0].replace('.', '/')}.py" for place in cli.places().values()}
    users = {path for path in ours() if any(name.partition(".")[0] == "typer" for _, name in imports(path))}
    assert users - jobs == {ROOT / "pipelines" / "cli.py"}


def test_a_job_is_the_file_that_is_called_like_it() -> None:
    from pipelines import cli

    others = {"up", "down", "status", "features"}  # the stack's verbs; `features` builds what it is named for
    wrong = {job: place for job, place in cli.places().items() if place.split(":")[0].split(".")[-1] != job}
    assert set(wrong) <= others


def test_what_we_tell_a_reader_does_not_go_where_libraries_talk() -> None:
    """`sys.stderr` is a log file while a job runs: our own words go to feature_repo.terminal.reader()."""
    known = {"feature_repo/terminal.py", "pipelines/cli.py", "pipelines/local/install.py"}
    said = ("sys.stderr", "err=True")
    found = {str(p.relative_to(ROOT)) for p in ours() if any(word in p.read_text() for word in said)}
    assert found <= known


def test_serving_does_not_need_torch() -> None:
    assert not [str(p) for p in modules("serving") for _, name in imports(p) if name.startswith("torch")]


def test_every_room_is_a_package_and_no_test_folder_shadows_one() -> None:
    assert all((room / "__init__.py").exists() for room in rooms())
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_data_holds_no_code() -> None:
    assert not [p for p in (ROOT / "data").glob("*.py")]


def test_a_module_imported_relatively_is_resolved_to_its_package() -> None:
    node = ast.parse("from ..serving import router").body[0]
    assert isinstance(node, ast.ImportFrom) and node.level == 2  # the level that the check above refuses
