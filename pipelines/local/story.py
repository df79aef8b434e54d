"""How long work talks: a line per step and per stage with its time; everything else is in a log it names."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from feature_repo.errors import EndcapError
from feature_repo.params import root
from pipelines.cli import call, function_of, places, summary

WIDTH = 80
LAST_LINES = 12  # of a failed stage's output
DVC_IS_BUSY = "it is being blocked by"
STARTED = re.compile(r"Running stage '(?:dvc\.yaml:)?(?P<stage>[^']+)'")
SKIPPED = re.compile(r"Stage '[^']+' (didn't change|is cached)")
console = Console(highlight=False, soft_wrap=True)


class StepError(EndcapError):
    """A step failed; what it said stands above the message."""


@contextmanager
def step(told: str) -> Iterator[None]:
    """One step: what happens, in plain words, and how long it took."""
    console.print(f"\n[bold cyan]▸ {told}[/]")
    started = time.monotonic()
    yield
    console.print(f"  [dim]{time.monotonic() - started:.1f} s[/]")


def say(line: str) -> None:
    """A line of what happens within a step."""
    console.print(f"  {line}", markup=False)


def show(*command: str) -> None:
    """The command that the next lines come from, as a reader would type it."""
    console.print(f"  [green]$ {' '.join(command)}[/]")


def endcap(job: str, *args: str) -> None:
    """One job, shown as a reader would run it. Raises its own error, or StepError where it ends with 1.

    It runs in this process: the libraries of a release, imported once, serve four promotions.
    """
    show("endcap", job, *args)
    if code := call(job, function_of(job), args):
        raise StepError(f"`{' '.join(('endcap', job, *args))}` ended with {code}; the reason stands above")


def reproduce(target: str, log: Path) -> None:
    """`dvc repro`: only the stages whose code, parameters or data changed since the last run.

    Each is one line: its time and what it does. All that they say goes to `log`, relative to root(); when one
    fails, the end of it is shown and StepError raised.
    """
    show("dvc", "repro", target)
    (root() / log).parent.mkdir(parents=True, exist_ok=True)
    # The stages call `endcap`, which has to be the one of this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "dvc", "repro", target]
    with (
        (root() / log).open("w") as output,
        subprocess.Popen(
            command, cwd=root(), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as dvc,
    ):
        assert dvc.stdout is not None  # because of PIPE
        unchanged = _stages(dvc.stdout, output)
    if dvc.returncode:
        said = (root() / log).read_text(errors="replace")
        for line in said.splitlines()[-LAST_LINES:]:
            say(line)
        if DVC_IS_BUSY in said:
            raise StepError(f"`dvc repro {target}`: another one is at work on these files; wait for its end")
        raise StepError(f"`dvc repro {target}` ended with {dvc.returncode}; all that was said is in {log}")
    if unchanged:
        say(f"{unchanged} stages have nothing new to do")


def _stages(lines: Iterable[str], output: TextIO) -> int:
    """Tell the stages of a running `dvc repro` from its lines; how many had nothing to do."""
    unchanged, stage, job, started = 0, "", "", 0.0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        clock = bar.add_task("")
        for line in lines:
            output.write(line)
            if begun := STARTED.match(line):
                stage, started = begun["stage"], time.monotonic()
                bar.reset(clock, description=stage)
            elif line.startswith("> endcap "):
                job = line.split()[2]
            elif SKIPPED.match(line):
                unchanged += 1
            elif stage and line.rstrip().endswith("lock file 'dvc.lock'"):
                _finished(stage, job, time.monotonic() - started)
                stage, job = "", ""
    return unchanged


def _finished(stage: str, job: str, seconds: float) -> None:
    told = summary(places()[job]) if job else ""  # a stage may be a shop's own
    line = f"{stage:<18}{seconds:>6.1f} s  {told}"
    say(line if len(line) <= WIDTH - 2 else f"{line[: WIDTH - 3]}…")
