"""What deploy/ builds holds the code that answers and trains, and no data, test or secret."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from shops.service import Service

from pipelines import cli

pytest_plugins = ("shops.service",)

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"feature_repo", "training", "serving", "monitoring", "pipelines"}
PINNED = re.compile(r"python:3\.11\.\d+-slim-[a-z]+")


def instructions() -> list[tuple[str, str]]:
    """Word and arguments of each instruction, lines that go on joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "deploy/Containerfile").read_text(), flags=re.M)
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def copied() -> list[tuple[str, str]]:
    """Source in the project and its place in the image, of the last stage."""
    last = max(at for at, (word, _) in enumerate(instructions()) if word == "FROM")
    found = []
    for word, rest in instructions()[last:]:
        if word == "COPY" and "--from=" not in rest:
            *sources, place = rest.split()
            found += [(one, f"{place}{one}" if place.endswith("/") else place) for one in sources]
    return found


def test_the_base_is_pinned_and_the_image_runs_as_nobody_special() -> None:
    parts = instructions()
    bases = [rest.split()[0] for word, rest in parts if word == "FROM"]
    assert bases and all(PINNED.fullmatch(base) for base in bases)
    users = [at for at, (word, _) in enumerate(parts) if word == "USER"]
    assert [parts[at][1] for at in users] == ["10001:10001"]
    assert not [word for word, _ in parts[users[-1] :] if word in ("RUN", "COPY", "ADD")]
    assert not [word for word, _ in parts if word == "ADD"]
    assert not [
        rest for word, rest in parts if word in ("ENV", "ARG") and re.search("TOKEN|KEY|PASS|REDIS", rest)
    ]
    job = dict(parts)["ENTRYPOINT"] + dict(parts)["CMD"]
    assert job == '["endcap"]["serve", "--host", "0.0.0.0"]' and "serve" in cli.places()


def test_what_is_copied_exists_is_all_the_code_and_passes_the_ignore_file() -> None:
    sources = [source for source, _ in copied()]
    assert all((ROOT / source).exists() for source in sources)
    assert set(sources) >= PACKAGES
    assert not {"data", "run", "tests", "benchmarks", ".git"} & {source.split("/")[0] for source in sources}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(sources)
    assert lines[1] == "*"
    assert dict(instructions())["WORKDIR"] == "/srv/endcap"


def test_the_image_s_files_alone_know_every_job_and_load_the_service(tmp_path: Path) -> None:
    for source, place in copied():
        target = tmp_path / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / source, target)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"ENDCAP_HOME": str(tmp_path)}
    look = "import serving.service, pipelines.cli as c; print(c.__file__); print(c.overview())"
    ended = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.startswith(str(tmp_path))
    assert all(re.search(rf"^  {job} +\S", ended.stdout, re.M) for job in cli.places())


def test_the_health_check_asks_what_the_service_answers(service: Service) -> None:
    check = next(rest for word, rest in instructions() if word == "HEALTHCHECK")
    code = re.search(r'"-c", "(.*)"\]', check)
    assert code and "127.0.0.1:3000/readyz" in code[1]
    for address, status in ((service.url, 0), ("http://127.0.0.1:9", 1)):
        command = [sys.executable, "-c", code[1].replace("http://127.0.0.1:3000", address)]
        assert subprocess.run(command, capture_output=True, timeout=30).returncode == status


def test_a_bento_holds_what_answers_and_nothing_else(tmp_path: Path) -> None:
    env = os.environ | {"BENTOML_HOME": str(tmp_path), "ENDCAP_HOME": str(ROOT), "BENTOML_DO_NOT_TRACK": "1"}
    bentoml = str(Path(sys.executable).with_name("bentoml"))
    command = [bentoml, "build", "-f", "deploy/bentofile.yaml", "-o", "tag", "."]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    [bento] = tmp_path.glob("bentos/endcap/*/bento.yaml")
    source = bento.parent / "src"
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {name.split("/")[0] for name in held} == {
        "feature_repo",
        "serving",
        "params.yaml",
        "bentofile.yaml",
    }
    wanted = subprocess.run(
        ["git", "ls-files", "feature_repo", "serving"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(wanted.stdout.split()) <= held
    assert (bento.parent / "env/python/requirements.txt").read_text().count("==") > 100
