"""params.yaml, the only home of constants, read into frozen dataclasses."""

import dataclasses
import os
import shutil
import subprocess
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml

from feature_repo.clock import instant, micros
from feature_repo.errors import ParamsError

T = TypeVar("T")
CHOSEN = Path("data/shop.yaml")  # what `endcap shop NAME` wrote
FOR_DVC = "dvc"  # its section that dvc.yaml alone reads
CUTS = ("rank_from", "valid_from", "test_from")
ENGINES = ("embedded", "spark")


def root() -> Path:
    """The project's folder: $ENDCAP_HOME, else the nearest folder upwards that holds params.yaml."""
    home = os.environ.get("ENDCAP_HOME")
    if home:
        return Path(home)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").exists():
            return folder
    raise ParamsError(f"params.yaml: not found in {here} or above; run inside the project or set ENDCAP_HOME")


def revision() -> str | None:
    """The git revision of the project's folder, None outside a checkout and where there is no git."""
    if shutil.which("git") is None:
        return None
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=root(), capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None


@contextmanager
def home(folder: Path, **environ: str) -> Iterator[None]:
    """Stand in another project folder, with these environment variables besides; then all is as before."""
    before = dict(os.environ)
    os.environ.update(environ, ENDCAP_HOME=str(folder))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def load(section: str, kind: type[T]) -> T:
    """Section of params.yaml as `kind`, a frozen dataclass whose fields are exactly the section's keys.

    Nested dataclasses are read from nested sections. Raises ParamsError on an unknown key, a missing one
    or a value of another type; ints are accepted where floats are declared, nothing else is converted.

    >>> @dataclass(frozen=True)
    ... class Gate:
    ...     min_coverage: float
    >>> _build({"min_coverage": 0.8}, Gate, "gate")
    Gate(min_coverage=0.8)
    """
    sections = _sections()
    if section not in sections:
        raise ParamsError(f"params.yaml: section '{section}' is missing; sections are {', '.join(sections)}")
    return _build(sections[section], kind, section)


def parse(values: Any, kind: type[T], where: str) -> T:
    """As `load`, of values that were read elsewhere; `where` they stand is named by errors."""
    return _build(values, kind, where)


def on_spark() -> bool:
    """Whether `offline` of params.yaml leaves history to Spark. No stage's param: the rows are the same."""
    chosen = _sections().get("offline", ENGINES[0])
    if chosen not in ENGINES:
        raise ParamsError(f"offline: {chosen!r} is not allowed; allowed: {', '.join(ENGINES)}")
    return bool(chosen == "spark")


def _sections() -> dict[str, Any]:
    path = root() / "params.yaml"
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        raise ParamsError(f"{path}: not found; correct ENDCAP_HOME or run inside the project") from None
    return _read(path, changed)


@cache
def _read(path: Path, mtime_ns: int) -> dict[str, Any]:
    return _yaml(path)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path.name}: not YAML: {'; '.join(str(error).splitlines())}") from error
    if not isinstance(values, dict):
        raise ParamsError(f"{path.name}: {values!r} is not a section; allowed: keys and values")
    return values


def _build(values: Any, kind: type[T], where: str) -> T:
    if not isinstance(values, dict):
        raise ParamsError(f"{where}: {values!r} is not a section; allowed: keys and values")
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(map(str, set(values) - fields)):
        raise ParamsError(f"{where}.{unknown[0]}: unknown key; allowed: {', '.join(sorted(fields))}")
    optional = {f.name for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}  # type: ignore[arg-type]
    if missing := sorted(fields - optional - set(values)):
        raise ParamsError(f"{where}.{missing[0]}: missing; add it to params.yaml")
    return kind(
        **{name: _convert(values[name], hints[name], f"{where}.{name}") for name in fields & set(values)}
    )


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(value, hint, where)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(value, next(a for a in args if a is not type(None)), where)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {k: _convert(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if hint is datetime:
        return _instant(value, where)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ParamsError(
            f"{where}: {value!r} is not a {getattr(hint, '__name__', hint)}; change params.yaml"
        )
    return value


def _instant(value: Any, where: str) -> datetime:
    if isinstance(value, str | datetime):
        with suppress(ValueError, OverflowError):
            return instant(micros(value))
    raise ParamsError(f"{where}: {value!r} is not an instant; allowed: 2016-10-17T00:00:00Z")


@dataclass(frozen=True)
class Shop:
    """Whose data is used and where its time is cut: prior | ranker training | validation | test."""

    name: str
    adapter: str  # a key of pipelines.ingest.adapters.adapters.ADAPTERS
    source: str  # folder of the raw export, relative to root()
    mapping: str | None  # of the table adapter; of a platform's, another catalogue
    rank_from: datetime
    valid_from: datetime
    test_from: datetime
    expects: tuple[str, ...] = ()  # what its data must hold: words of pipelines.ingest.profile.WITHOUT
    moved_days: int = 0  # by which `endcap retrain` has moved the cuts on from those of params.yaml

    def run_dir(self) -> Path:
        """Live state of this shop: redis, mlflow, logs, process ids."""
        return root() / "run" / self.name


def shop() -> Shop:
    """The active shop: data/shop.yaml if `endcap shop NAME` wrote one, else `shop` of params.yaml."""
    chosen = root() / CHOSEN
    if chosen.exists():
        values = {key: value for key, value in _yaml(chosen).items() if key != FOR_DVC}
        return _in_order(_build(values, Shop, str(CHOSEN)), str(CHOSEN))
    return named_shop(str(_sections().get("shop")))


def _in_order(found: Shop, where: str) -> Shop:
    """Raise ParamsError unless the cuts follow each other: nothing could be trained between them."""
    for earlier, later in pairwise(CUTS):
        if getattr(found, earlier) >= getattr(found, later):
            value = getattr(found, later).isoformat()
            raise ParamsError(f"{where}.{later}: {value} is not after {earlier}; allowed: {' < '.join(CUTS)}")
    return found


def named_shop(name: str) -> Shop:
    """Section `shops.<name>` of params.yaml. Raises ParamsError for a name that is not there."""
    # A shop may be called 2024, which YAML reads as a number.
    shops = {str(key): values for key, values in (_sections().get("shops") or {}).items()}
    if name not in shops:
        raise ParamsError(f"shop: '{name}' is unknown; allowed: {', '.join(shops)}; or add it to params.yaml")
    if not isinstance(shops[name], dict):
        raise ParamsError(f"shops.{name}: {shops[name]!r} is not a section; allowed: keys and values")
    return _in_order(_build({"name": name, **shops[name]}, Shop, f"shops.{name}"), f"shops.{name}")


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested params as pairs of a dotted name and a value.

    >>> dict(flat({"ranker": {"seed": 7}, "shop": "merch"}))
    {'ranker.seed': 7, 'shop': 'merch'}
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def refuse_stale(chosen: Shop) -> None:
    """Raise ParamsError where data/shop.yaml and the shop's section of params.yaml say different things.

    The folder alone may differ (`endcap shop NAME --source DIR`), and so may a shop without a section.
    """
    try:
        section = named_shop(chosen.name)
    except ParamsError:
        return
    section = moved(section, chosen.moved_days)
    for field in dataclasses.fields(Shop):
        ours, theirs = getattr(chosen, field.name), getattr(section, field.name)
        if ours != theirs and field.name != "source":
            where = f"shops.{chosen.name}.{field.name}"
            step = f"run `endcap shop {chosen.name}`, which takes over what params.yaml says"
            raise ParamsError(f"{where}: params.yaml has {theirs}, {CHOSEN} has {ours}; {step}")


def moved(chosen: Shop, days: int) -> Shop:
    """The shop with its cuts so many days later than now."""
    cuts = {name: getattr(chosen, name) + timedelta(days=days) for name in CUTS}
    return dataclasses.replace(chosen, moved_days=chosen.moved_days + days, **cuts)
