"""What each DVC stage took: `endcap JOB` notes it when DVC has started it, `endcap stages` tells it.

The notes are lines of run/<shop>/stages.jsonl. Times differ from run to run, so data/reports/stages.json is
the output of no stage.
"""

import json
import resource
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import yaml

from feature_repo.errors import DataError
from feature_repo.files import whole, write_json
from feature_repo.params import root, shop
from feature_repo.places import REPORTS, at

REPORT = REPORTS / "stages.json"
BAR = 20  # characters of the slowest stage's bar
TO_BYTES = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


@dataclass(frozen=True)
class Took:
    """One finished run of a stage."""

    stage: str  # as in dvc.yaml
    seconds: float  # by the clock, without DVC's own hashing
    cpu_seconds: float  # with its child processes
    peak_mb: float  # of its largest process
    ended: str  # UTC


def note(stage: str, seconds: float) -> None:
    """Append what this process and its children took for `stage`, as DVC calls it ("dvc.yaml:ranker")."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    took = Took(
        stage.rpartition(":")[2].partition("@")[0],  # a simulated shop's name follows an @
        round(seconds, 2),
        round(sum(one.ru_utime + one.ru_stime for one in used), 2),
        round(max(one.ru_maxrss for one in used) * TO_BYTES / 1e6),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    runs = _noted() | {took.stage: took}  # the newest of each stage: the file does not grow
    with whole(_notes()) as draft:
        draft.write_text("".join(json.dumps(asdict(one)) + "\n" for one in runs.values()))


def newest() -> list[Took]:
    """The newest run of each stage of dvc.yaml, in its order. Raises DataError when none was noted."""
    found = _noted()
    stages = yaml.safe_load((root() / "dvc.yaml").read_text())["stages"]
    if not (ordered := [found[name] for name in stages if name in found]):
        raise DataError(_notes().relative_to(root()), "holds no stage", next_step="run `dvc repro bundle`")
    return ordered


def write_report(took: list[Took]) -> Path:
    """data/reports/stages.json: the stages and their sum; its path."""
    total = {name: round(sum(getattr(one, name) for one in took), 2) for name in ("seconds", "cpu_seconds")}
    report = {"shop": shop().name, **total, "stages": [asdict(one) for one in took]}
    write_json(at(REPORT), report)
    return REPORT


def table(took: list[Took]) -> str:
    """The same for a person, at most 66 columns wide.

    >>> print(table([Took("ingest", 6, 9, 1200, ""), Took("ranker", 12.4, 20, 800, "")]))
    stage              seconds   CPU s   peak MB
    ingest                 6.0     9.0     1,200  ##########
    ranker                12.4    20.0       800  ####################
    all                   18.4    29.0     1,200
    """
    slowest = max(one.seconds for one in took)
    lines = [f"{'stage':<17}{'seconds':>9}{'CPU s':>8}{'peak MB':>10}"]
    lines += [_line(one, "  " + "#" * round(BAR * one.seconds / (slowest or 1))) for one in took]
    sums = sum(one.seconds for one in took), sum(one.cpu_seconds for one in took)
    return "\n".join([*lines, _line(Took("all", *sums, max(one.peak_mb for one in took), ""), "")])


def _line(took: Took, bar: str) -> str:
    line = f"{took.stage:<17}{took.seconds:>9.1f}{took.cpu_seconds:>8.1f}{took.peak_mb:>10,.0f}{bar}"
    return line.rstrip()


def _notes() -> Path:
    return shop().run_dir() / "stages.jsonl"


def _noted() -> dict[str, Took]:
    """Stage -> its newest run."""
    try:
        lines = _notes().read_text().splitlines() if _notes().exists() else []
        return {took.stage: took for took in (Took(**json.loads(line)) for line in lines)}
    except (ValueError, TypeError) as error:
        step = "delete it; `dvc repro` notes anew"
        raise DataError(_notes(), f"not the notes of stages: {error}", next_step=step) from error


def main(
    show: Annotated[bool, typer.Option("--show", help="Print the table too.")] = False,
) -> None:
    """Where the time of the last `dvc repro` went, stage by stage, into data/reports/stages.json."""
    took = newest()
    path = write_report(took)
    if show:
        print(table(took))
    print(f"{path}: {len(took)} stages, {sum(one.seconds for one in took):,.0f} s")
