"""The docs are executed: commands exist with the options shown, cheap ones are run, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import httpx
import pytest
from shops.service import Service

from pipelines import cli
from serving.payloads.terms import SYSTEMS

pytest_plugins = ("shops.service",)

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "data" / "README.md", *(ROOT / "docs").rglob("*.md")])
CHEAP = re.compile(r"endcap (--help|status|doctor( --json)?|[a-z_]+ --help)|make( help)?|dvc stage list")
SPAN = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
BUILT = ("data/", "run/")  # what stages make is not there in a fresh clone


def commands(page: Path) -> list[str]:
    """Every `$ command` of a console block and every `endcap ...` or `make ...` in running text."""
    text = page.read_text()
    blocks = [
        line for language, body in BLOCK.findall(text) if language == "console" for line in body.splitlines()
    ]
    spans = [span for span in SPAN.findall(BLOCK.sub("", text)) if re.match(r"(endcap|make)( |$)", span)]
    return [line[2:] for line in blocks if line.startswith("$ ")] + spans


ALL = sorted({command for page in PAGES for command in commands(page)})


def words(command: str) -> list[str]:
    """Arguments, without what stands behind a pipe."""
    return shlex.split(command.partition(" | ")[0])


@cache
def options(job: str) -> frozenset[str]:
    """Options of a job, from the annotations in its source: --name, or what typer.Option spells out."""
    tree = ast.parse((ROOT / f"{cli.places()[job].split(':')[0].replace('.', '/')}.py").read_text())
    found = {"--help"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for argument in (*node.args.args, *node.args.kwonlyargs):
                found.add("--" + argument.arg.replace("_", "-"))
                spelled = ast.walk(argument.annotation) if argument.annotation else ()
                found |= {
                    part
                    for n in spelled
                    if isinstance(n, ast.Constant) and str(n.value).startswith("--")
                    for part in str(n.value).split("/")
                }
    return frozenset(found)


@pytest.mark.parametrize("command", [c for c in ALL if c.startswith("endcap")])
def test_a_documented_job_exists_with_its_options(command: str) -> None:
    _, *rest = words(command)
    if not rest or rest[0] in ("--help", "JOB"):
        return
    assert rest[0] in cli.places()
    unknown = {word.partition("=")[0] for word in rest[1:] if word.startswith("--")} - options(rest[0])
    assert not unknown


@pytest.mark.parametrize("command", [c for c in ALL if c.startswith("make")])
def test_a_documented_target_exists_and_its_variables_are_read(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words(command)[1:]:
        if "=" in word:
            assert (
                f"$({word.partition('=')[0]})" in makefile or f"(if $({word.partition('=')[0]})" in makefile
            )
        else:
            assert re.search(rf"^{word}:.*## ", makefile, re.M)


@pytest.mark.parametrize("command", [c for c in ALL if CHEAP.fullmatch(c)])
def test_a_cheap_command_runs(command: str) -> None:
    first, *rest = words(command)
    argv = [sys.executable, "-m", "pipelines", *rest] if first == "endcap" else [first, *rest]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 or (first, rest[0]) in (("endcap", "status"), ("endcap", "doctor"))
    assert ended.stdout.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if not re.match(r"[a-z]+:", link)]
    targets = [(page.parent / link).resolve() for link in links]
    built = [t for t in targets if str(t.relative_to(ROOT)).startswith(BUILT)]
    assert not [t for t in targets if t not in built and not t.exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_number_is_still_to_be_filled_in(page: Path) -> None:
    assert "FILL_" + "ME" not in page.read_text()


def test_the_readme_shows_the_two_commands_first_and_every_package_of_the_card() -> None:
    text = (ROOT / "README.md").read_text()
    assert commands(ROOT / "README.md")[:2] == ["make demo", "make test"]
    for package in (
        "feast",
        "mlflow",
        "dvc",
        "torch",
        "lightgbm",
        "bentoml",
        "evidently",
        "great-expectations",
        "redis",
    ):
        assert f"| {package} |" in text


def test_every_target_of_the_makefile_is_documented_and_help_is_the_default() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert phony
    for target in set(phony[1].split()) - {"install"}:
        assert re.search(rf"^{target}:.*## .+", makefile, re.M), target
    assert ".DEFAULT_GOAL := help" in makefile


def test_every_direct_dependency_has_a_reason_and_every_package_one_version() -> None:
    direct = [line for line in (ROOT / "requirements.in").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"\S+ +# \S.*", line) for line in direct)
    pinned = [
        line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^+@/ ]+", line) for line in pinned)
    names = {re.split("==", line)[0].lower().replace("_", "-").replace(".", "-") for line in pinned}
    wanted = {re.split(r"[=\[> ]", line)[0].lower().replace("_", "-").replace(".", "-") for line in direct}
    assert wanted <= names


def test_every_example_of_another_systems_door_does_what_it_says(service: Service) -> None:
    """Each event door takes an event and each list door answers items; so for every door of the table."""
    page = (ROOT / "docs" / "compat.md").read_text()
    blocks = [body.splitlines() for language, body in BLOCK.findall(page) if language == "sh"]
    events, lists = ([line for line in block if line] for block in blocks)
    address = service.url.removeprefix("http://")
    systems = set()
    for line in events:
        before = _accepted(service)
        status = _curl(line, address)[1]
        assert status in ("200", "202", "204"), line
        assert _accepted(service) > before, line
        systems.add(re.split(r"[/ ']", line.partition("/compat/")[2])[0])
    assert systems == set(SYSTEMS)
    for line in lists:
        body, status = _curl(line, address)
        assert status == "200" and len(re.findall("item-|SKU-", body)) >= 2, (line, body)


def _curl(line: str, address: str) -> tuple[str, str]:
    """Body and status of an example, asked of another address."""
    command = line.replace("127.0.0.1:3000", address).replace(
        "curl -s", "curl -s -m 10 -w '\\n%{http_code}'", 1
    )
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30)
    body, _, status = ended.stdout.rpartition("\n")
    return body, status


def _accepted(service: Service) -> float:
    told = httpx.get(f"{service.url}/metrics", timeout=5).text
    return sum(
        float(n) for n in re.findall(r'^endcap_compat_events_total{outcome="accepted".*} (\S+)$', told, re.M)
    )


def doors() -> dict[str, str]:
    """Room -> the sentence on its door: the docstring of its `__init__.py`."""
    return {
        str(init.parent.relative_to(ROOT)): ast.get_docstring(ast.parse(init.read_text())) or ""
        for package in ("feature_repo", "training", "serving", "monitoring", "pipelines")
        for init in (ROOT / package).rglob("__init__.py")
    }


def test_the_readme_shows_every_room_with_what_its_door_says() -> None:
    rows = dict(re.findall(r"^\| \**`([\w/]+)/`\** \| (.*) \|$", (ROOT / "README.md").read_text(), re.M))
    assert rows == doors()
    assert all(rows.values())


def test_the_reading_list_is_fifteen_files_for_an_afternoon() -> None:
    """In the order of the numbers; each with its own sentence; 2,600 lines in all."""
    page = (ROOT / "docs" / "reading.md").read_text()
    found = re.findall(r"^(\d+)\. \[([\w/]+\.py)\]\(\.\./([\w/]+\.py)\): ([^\n]+\.)$", page, re.M)
    assert [int(number) for number, *_ in found] == list(range(1, 16))
    assert all(shown == linked for _, shown, linked, _ in found)
    assert len({sentence for *_, sentence in found}) == 15
    lengths = [len((ROOT / path).read_text().splitlines()) for _, path, *_ in found]
    assert sum(lengths) <= 2_600
