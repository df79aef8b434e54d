"""The `endcap` command: a job is `main` of the file that is called like it, imported only when it is called.

Exit codes: 0 done, 1 a gate or a check failed or the input is unusable, 2 wrong usage, 130 interrupted.
"""

import ast
import difflib
import errno
import functools
import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, TextIO

from feature_repo.errors import EndcapError
from feature_repo.params import root, shop
from feature_repo.quiet import hush
from feature_repo.terminal import libraries_to, reader

# Job -> "module" or "module:function", in the order of the work.
JOBS: dict[str, dict[str, str]] = {
    "data": {
        "shop": "pipelines.ingest.shop",
        "simulate": "pipelines.simulate.simulate",
        "doctor": "pipelines.doctor.doctor",
        "migrate": "pipelines.ingest.migrate",
        "ingest": "pipelines.ingest.ingest",
        "land": "pipelines.retrain.land",
        "items": "pipelines.ingest.items",
        "validate": "pipelines.validate.validate",
    },
    "features": {
        "features": "feature_repo.offline.build",
        "feature": "pipelines.parity.feature",
        "leakage": "pipelines.parity.leakage",
        "text": "training.two_tower.text",
        "materialize": "pipelines.stream.materialize",
    },
    "models": {
        "two_tower": "training.two_tower.two_tower",
        "als": "training.collaborative.als",
        "item_item": "training.collaborative.item_item",
        "blend": "pipelines.blend.blend",
        "ranker_data": "pipelines.protocol.ranker_data",
        "ranker": "training.ranking.ranker",
        "order": "pipelines.blend.order",
        "evaluate": "pipelines.release.evaluate",
        "compare": "pipelines.compare.compare",
    },
    "release": {
        "gate": "pipelines.release.gate",
        "bundle": "pipelines.release.bundle",
        "promote": "pipelines.release.promote",
        "rollback": "pipelines.release.rollback",
        "shadow": "pipelines.compare.shadow",
        "interleave": "pipelines.compare.interleave",
        "rollout": "pipelines.release.rollout",
        "retrain": "pipelines.retrain.retrain",
        "refresh": "pipelines.retrain.refresh",
        "prune": "pipelines.retrain.prune",
        "trace": "pipelines.lineage.trace",
        "rules": "pipelines.rules.rules",
        "margin": "pipelines.rules.margin",
        "experiment": "pipelines.experiment.experiment",
    },
    "persons": {
        "person": "pipelines.persons.person",
        "erase": "pipelines.persons.erase",
        "retain": "pipelines.persons.retain",
    },
    "serve": {
        "up": "pipelines.local.stack:up",
        "down": "pipelines.local.stack:down",
        "status": "pipelines.local.stack:status",
        "restore": "pipelines.local.restore",
        "serve": "pipelines.local.serve",
        "stream": "pipelines.stream.stream",
        "dead": "pipelines.stream.dead",
        "embed": "pipelines.newborn.embed",
        "rails": "pipelines.rails.rails",
        "email": "pipelines.surfaces.email",
        "replay": "pipelines.parity.replay",
        "demo": "pipelines.demo.demo",
        "window": "pipelines.demo.window",
        "storefront": "pipelines.demo.storefront",
    },
    "watch": {
        "feedback": "monitoring.experiment.feedback",
        "served": "pipelines.protocol.served",
        "drift": "monitoring.drift.drift",
        "unseen": "pipelines.unseen.unseen",
        "stages": "pipelines.local.stages",
        "console": "pipelines.local.console",
    },
}

# They run on, and `endcap up` gives each a log of its own.
FOREGROUND = {"serve", "stream", "embed", "console", "storefront"}
INTERRUPTED = 130
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
# As libraries say it who keep no error number: SQLite (also the last: a file may not grow), DuckDB, Arrow.
NO_SPACE_TOLD = ("database or disk is full", "No space left on device", "File too large", "disk I/O error")
NO_ACCESS_TOLD = ("attempt to write a readonly database", "unable to open database file", "Permission denied")


def places() -> dict[str, str]:
    """Job name -> "module:function", over all groups."""
    return {
        job: place if ":" in place else f"{place}:main"
        for group in JOBS.values()
        for job, place in group.items()
    }


def function_of(job: str) -> Callable[..., Any]:
    """The function of a job; imports its module."""
    module, name = places()[job].split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def summary(place: str) -> str:
    """First line of a job's docstring, read from its source: importing 25 jobs would take seconds."""
    module, function = place.split(":")
    file = Path(__file__).parents[1] / f"{module.replace('.', '/')}.py"
    source = file.read_text() if file.exists() else ""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def overview() -> str:
    """What `endcap --help` prints: every job with its line, grouped in the order of the work."""
    lines = ["Usage: endcap JOB [OPTIONS]      endcap JOB --help tells a job's options"]
    lines.append("What libraries say while a job runs is in run/SHOP/logs/JOB.log")
    for group, jobs in JOBS.items():
        lines.append(group)
        lines += [f"  {job:<12} {summary(places()[job])}" for job in jobs]
    return "\n".join(lines)


def call(job: str, function: Callable[..., Any], args: Sequence[str]) -> int:
    """Parse `args` by the annotations of `function`, run it and return its exit code (None counts as 0)."""
    import typer  # 40 ms that `endcap --help` does not need

    libraries = sys.stderr

    @functools.wraps(function)
    def command(*positional: Any, **named: Any) -> None:
        with redirect_stderr(libraries):
            raise typer.Exit(function(*positional, **named) or 0)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        with redirect_stderr(reader()):  # usage errors
            app(args=list(args), prog_name=f"endcap {job}")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


def complain(message: str) -> None:
    """One line on stderr, red on a terminal."""
    red, plain = ("\033[31m", "\033[0m") if reader().isatty() else ("", "")
    print(f"{red}endcap: {message}{plain}", file=reader())


def run(args: Sequence[str], libraries_apart: bool = False) -> int:
    """Exit code of `endcap *args`; what a reader can act on is one line; so is a bug, its log has more.

    `libraries_apart`: file descriptor 2 is the libraries' for good, as fits a process that is this job.
    """
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    job, found = args[0], places()
    if job not in found:
        near = difflib.get_close_matches(job, found, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        complain(f"no job is called {job!r}{hint} `endcap --help` lists them")
        return 2
    hush()
    try:
        if libraries_apart and job not in FOREGROUND and args[1:2] != ["--help"]:
            with suppress(OSError):  # `status` and `down` are needed on a full or read-only disk, too
                told = args[:1] if job in JOBS["persons"] else args  # a log names nobody
                libraries_to(shop().run_dir() / "logs" / f"{job}.log", f"endcap {' '.join(told)}")
        began, stage = time.monotonic(), os.environ.pop("DVC_STAGE", "")  # not for what the job starts
        if (code := call(job, function_of(job), args[1:])) == INTERRUPTED:
            raise KeyboardInterrupt  # typer ends with the code alone
        if stage and code == 0:
            importlib.import_module("pipelines.local.stages").note(stage, time.monotonic() - began)
        return code
    except EndcapError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain(f"{job} was interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if _redis_went_away(error):
            from feature_repo.online.connection import unavailable

            complain(f"{unavailable()} ({error})")
        else:
            complain(f"{job}: {_told(error) or _bug(job, error)}")
        return 1


def _told(error: BaseException | None) -> str:
    """What the machine refuses, also where a library wraps it; empty where the cause is not known."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        where = getattr(error, "filename", None) or root()
        if number in NO_SPACE or any(words in str(error) for words in NO_SPACE_TOLD):
            return f"no space left on the disk that holds {where}; make room and run it again"
        if number in NO_ACCESS or any(words in str(error) for words in NO_ACCESS_TOLD):
            step = "mount it for writing" if number == errno.EROFS else "change its owner or rights"
            return f"{where} may not be read or written; {step} and run it again"
        error = error.__cause__ or error.__context__
    return ""


def _bug(job: str, error: Exception) -> str:
    """Keeps the traceback in the job's log, else in a temporary folder, and says where."""
    kept = "the traceback could not be kept: no folder can be written"
    for opened in (lambda: _log_of(job), lambda: _log_apart(job)):
        with suppress(OSError, EndcapError), opened() as log:
            traceback.print_exception(error, file=log)
            kept = f"{log.name} holds the traceback"
            break
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}. This is a bug of Endcap; {kept}, please report it"


def _log_of(job: str) -> TextIO:
    folder = shop().run_dir() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{job}.log").open("a")


def _log_apart(job: str) -> TextIO:
    """A file of our own: a name that others can foresee in a folder that all may write is theirs."""
    number, name = tempfile.mkstemp(prefix=f"endcap-{job}-", suffix=".log")
    os.close(number)
    return Path(name).open("w")


def _redis_went_away(error: Exception) -> bool:
    """In the middle of a job, which has then imported redis; `endcap --help` must not."""
    redis = sys.modules.get("redis")
    return redis is not None and isinstance(error, redis.ConnectionError | redis.TimeoutError)


def main() -> None:
    """Entry point of the console script."""
    if most := os.environ.pop("ENDCAP_LOG_BYTES", None):  # a process of `endcap up`; not for its children
        from pipelines.local.process import keep_log_bounded

        keep_log_bounded(int(most))
    try:
        sys.exit(run(sys.argv[1:], libraries_apart=True))
    except BrokenPipeError:  # `endcap --help | head -1`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
