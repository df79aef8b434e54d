"""The `endcap` command: what it lists, how fast, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
import typer

from feature_repo.errors import EndcapError
from pipelines import cli

ROOT = Path(__file__).resolve().parents[2]


def endcap(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("job", "place"), cli.places().items())
def test_every_job_has_a_file_a_function_and_a_line_of_help(job: str, place: str) -> None:
    assert (ROOT / f"{place.split(':')[0].replace('.', '/')}.py").exists()
    assert cli.summary(place).endswith(".")


def test_help_lists_every_job_in_the_order_of_the_work() -> None:
    text = cli.overview()
    places = [text.index(f"\n  {job} ") for job in cli.places()]
    assert places == sorted(places)
    assert [line for line in text.splitlines()[2:] if not line.startswith(" ")] == list(cli.JOBS)


def test_help_answers_at_once_because_it_imports_no_job() -> None:
    script = "import sys; from pipelines import cli; cli.run(['--help']); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True).stdout
    assert "pipelines.cli" in loaded
    for heavy in ("torch", "feast", "mlflow", "bentoml", "pandas", "typer"):
        assert f"'{heavy}'" not in loaded
    fastest = min(_seconds("--help") for _ in range(3))
    assert fastest < 0.5


def _seconds(*args: str) -> float:
    start = time.perf_counter()
    assert endcap(*args).returncode == 0
    return time.perf_counter() - start


def test_an_unknown_job_ends_with_2_and_the_nearest_name() -> None:
    ended = endcap("ranke")
    assert ended.returncode == 2
    assert "no job is called 'ranke'; did you mean ranker?" in ended.stderr


def test_a_missing_argument_ends_with_2() -> None:
    ended = endcap("shop")
    assert (ended.returncode, "Missing argument" in ended.stderr) == (2, True)


def test_an_error_of_ours_is_one_line_without_traceback() -> None:
    ended = endcap("shop", "nope")
    assert ended.returncode == 1
    assert ended.stderr.startswith("endcap: shop: 'nope' is unknown; allowed: simulated, merch")
    assert len(ended.stderr.splitlines()) == 1


def test_arguments_reach_the_job_and_its_code_comes_back() -> None:
    seen: list[tuple[str, int]] = []

    def job(name: str, times: Annotated[int, typer.Option()] = 1) -> int:
        seen.append((name, times))
        return times

    assert cli.call("job", job, ["a", "--times", "3"]) == 3
    assert cli.call("job", job, ["b", "--times", "x"]) == 2
    assert seen == [("a", 3)]


def test_a_job_without_a_return_value_is_done_and_typer_exit_is_respected() -> None:
    def quiet() -> None: ...

    def failed() -> None:
        raise typer.Exit(1)

    def refused() -> None:
        raise EndcapError("no")

    assert cli.call("quiet", quiet, []) == 0
    assert cli.call("failed", failed, []) == 1
    with pytest.raises(EndcapError):
        cli.call("refused", refused, [])


def test_status_is_readable_by_machines() -> None:
    ended = endcap("status", "--json")
    rows = json.loads(ended.stdout)
    assert [row["name"] for row in rows][-6:] == ["stream", "embed", "rails", "service", "console", "guard"]
    assert ended.returncode == int(any(row["state"] != "ready" for row in rows))
