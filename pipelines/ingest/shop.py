"""Whose data the stages read: data/shop.yaml, from section `shops` of params.yaml."""

import dataclasses
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
import yaml

from feature_repo.errors import DataError, ParamsError
from feature_repo.files import whole
from feature_repo.params import CHOSEN, CUTS, FOR_DVC, Shop, named_shop, root, shop

NO_MAPPING = "pipelines/ingest/adapters/mapping.py"  # in the place of a dependency, which cannot be left out


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


def advance(days: int) -> Shop:
    """Set the cuts of the active shop `days` after those of params.yaml; what it says of others stays."""
    chosen = shop()
    return _write(moved(chosen, days - chosen.moved_days))


def choose(name: str, source: Path | None = None) -> Shop:
    """Make `shops.<name>` the active shop, with `source` as its folder if given, and return it.

    Raises ParamsError for an unknown name and DataError when the folder of a shop's own data is not there;
    the shop that was active then stays so.
    """
    chosen = named_shop(name)
    if source is not None:
        chosen = dataclasses.replace(chosen, source=_relative(source))
    folder = root() / chosen.source
    if chosen.adapter != "simulated" and not folder.is_dir():
        problem = f"there is no such folder with the data of shop '{name}'"
        step = f"name it: `endcap shop {name} --source DIR` or `make demo DATA={name} DATA_DIR=DIR`"
        raise DataError(chosen.source, problem, next_step=step)
    return _write(chosen)


def _write(chosen: Shop) -> Shop:
    # Instants as text: DVC writes parameters into dvc.lock, and YAML instants do not survive that.
    fields = dataclasses.asdict(chosen).items()
    values = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in fields}
    values[FOR_DVC] = {
        "mapping": chosen.mapping or NO_MAPPING,
        "simulates": [chosen.name] if chosen.adapter == "simulated" else [],
    }
    text = f"# Written by `endcap shop {chosen.name}`; dvc.lock belongs to this shop.\n"
    text += yaml.safe_dump(values, sort_keys=False)
    file = root() / CHOSEN
    file.parent.mkdir(exist_ok=True)
    if not file.exists() or file.read_text() != text:
        with whole(file) as draft:  # a job that reads it meanwhile finds one shop or the other
            draft.write_text(text)
    return chosen


def _relative(source: Path) -> str:
    """Relative to the root where that works, so that the file fits other machines."""
    absolute, home = source.expanduser().resolve(), root().resolve()
    return os.path.relpath(absolute, home) if absolute.is_relative_to(home.parent) else str(absolute)


def main(
    name: Annotated[str, typer.Argument(help="A section of `shops` in params.yaml.")],
    source: Annotated[Path | None, typer.Option(help="Folder of the raw export, if elsewhere.")] = None,
) -> None:
    """Choose the shop whose data the stages read (writes data/shop.yaml)."""
    chosen = choose(name, source)
    print(f"{chosen.name}: {chosen.adapter} data in {chosen.source}, test from {chosen.test_from:%Y-%m-%d}")
