"""Whose data the stages read: data/shop.yaml, from section `shops` of params.yaml."""

import dataclasses
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
import yaml

from feature_repo.errors import DataError
from feature_repo.files import whole
from feature_repo.params import CHOSEN, FOR_DVC, Shop, moved, named_shop, root, shop
from feature_repo.places import EVENT_LOG, ITEM_LOG, LOGS, at

ASIDE = "data-logs"  # in run/<shop> of one that is not active: its data/logs
NOTE = ".gitignore"  # keeps an empty log in a checkout
NO_MAPPING = "pipelines/ingest/adapters/mapping.py"  # in the place of a dependency, which cannot be left out


def advance(days: int) -> Shop:
    """Set the cuts of the active shop `days` after those of params.yaml; what it says of others stays."""
    chosen = shop()
    return _write(moved(chosen, days - chosen.moved_days))


def choose(name: str, source: Path | None = None) -> Shop:
    """Make `shops.<name>` the active shop, with `source` as its folder if given, and return it.

    What the shop that was active wrote down while it ran (data/logs) goes aside, and this one's comes back.
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
    before = shop()
    _write(chosen)
    if before.name != chosen.name:
        _exchange(at(LOGS), before.run_dir() / ASIDE, chosen.run_dir() / ASIDE)
    for log in (EVENT_LOG, ITEM_LOG):  # dependencies of the first stage, empty in a new shop
        at(log).mkdir(parents=True, exist_ok=True)
        if (note := before.run_dir() / ASIDE / log.name / NOTE).exists():
            shutil.copy(note, at(log) / NOTE)
    return chosen


def _exchange(held: Path, away: Path, back: Path) -> None:
    """Folder `held` goes to `away`, and `back` takes its place, each where it is there.

    After a kill in between `held` is not there, so that the first move is not made a second time.
    """
    if held.exists():
        shutil.rmtree(away, ignore_errors=True)
        away.parent.mkdir(parents=True, exist_ok=True)
        held.rename(away)
    if back.exists():
        held.parent.mkdir(parents=True, exist_ok=True)
        back.rename(held)


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
    from pipelines.local import (
        process,  # what runs concerns this job, not the stages that read whose data it is
    )

    before = shop()
    running = sorted(record.name for record in process.recorded(before.run_dir()) if record.is_running())
    if before.name != name and running:
        told = f"shop: {before.name} runs ({', '.join(running)}) and writes into data/logs"
        raise process.StackError(f"{told}; allowed: one that is stopped. Next: `endcap down`")
    chosen = choose(name, source)
    print(f"{chosen.name}: {chosen.adapter} data in {chosen.source}, test from {chosen.test_from:%Y-%m-%d}")
