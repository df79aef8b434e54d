"""No job lets a foreign exception through: whatever is broken around it, its reader gets one line of ours.

Every job of the command line meets every fault here, so a new job is covered by being there.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from shops.disk import as_somebody_else, full_disk

from feature_repo import params, terminal
from feature_repo.features.views import DECLARED
from pipelines import cli
from serving.release.bundle import FILES

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "redis://user:secret@127.0.0.1:1/0"
ARGS: dict[str, list[str]] = {  # a job that is not here is called without arguments
    "shop": ["shop simulated"],
    "simulate": ["simulate --size tiny"],
    "migrate": ["migrate metarank data/export/history.jsonl", "migrate gorse data/export/events.parquet"],
    "doctor": ["doctor", "doctor simulated", "doctor data/export"],
    "validate": ["validate raw", "validate training"],
    "feature": ["feature", "feature user_days_away somebody"],
    "materialize": ["materialize", "materialize --as-of 2026-02-23"],
    "two_tower": ["two_tower --fit prior"],
    "als": ["als --fit prior"],
    "item_item": ["item_item --fit prior"],
    "promote": ["promote", "promote --direct", "promote --repair"],
    "evaluate": ["evaluate", "evaluate --show"],
    "compare": ["compare HEAD", "compare . .", "compare nowhere --json"],
    "rollout": [
        f"rollout {verb}"
        for verb in ("start", "status", "stop", "advance", "watch", "plan --runs 2", "history")
    ],
    "experiment": [
        f"experiment {verb}"
        for verb in ("plan", "publish x.json --why x", "start calm --why x", "results holdout", "show")
    ],
    "interleave": [f"interleave {verb}" for verb in ("start", "status", "stop")],
    "trace": [f"trace {'0' * 32}", "trace --bundle abcd"],
    "embed": ["embed --once"],
    "stream": ["stream --from beginning --until-empty"],
}
CALLS = [call for job in cli.places() for call in ARGS.get(job, [job])]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _rewritten(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Every section of params.yaml but the shops', changed."""

    def write(home: Path) -> None:
        values = yaml.safe_load((home / "params.yaml").read_text())
        kept = {name: values.pop(name) for name in ("shop", "shops")}
        changed = {name: change(value) for name, value in values.items()}
        (home / "params.yaml").write_text(yaml.safe_dump(kept | {k: v for k, v in changed.items() if v}))

    return write


def _wrong(value: Any) -> Any:
    return {k: _wrong(v) for k, v in value.items()} if isinstance(value, dict) else ["wrong"]


def _files(content: bytes, *places: str) -> Callable[[Path], None]:
    def write(home: Path) -> None:
        for place in places:
            _write(home / place, content)

    return write


def _other(path: Path) -> None:
    _write(path, b"")
    pq.write_table(pa.table({"other": [1, 2]}), path)


def _all(*faults: Callable[[Path], None]) -> Callable[[Path], None]:
    def write(home: Path) -> None:
        for fault in faults:
            fault(home)

    return write


def _foreign_bundle(manifest: bytes) -> Callable[[Path], None]:
    files = _files(b"\x00truncated", *(f"data/bundles/candidate/{name}" for name in FILES))

    def write(home: Path) -> None:
        files(home)
        _write(home / "data/bundles/candidate/manifest.json", manifest)

    return write


REPORTS = ("evaluate", "gate", "replay", "parity", "ingest", "drift")
STORED = ("export/events", "export/impressions", "export/items", "raw/events", "raw/impressions", "raw/items")
PARQUETS = (*STORED, *(f"features/{view.name}" for view in DECLARED), "features/ranker_training")
MODELS = (
    "two_tower/user_tower.onnx",
    "two_tower/item_vectors.npy",
    "als/item_factors.npy",
    "als/als_items.npy",
)
TABLES = tuple(f"item_item/{name}.npz" for name in ("covisit", "next", "ease"))
FITTED = [f"data/models/{fit}/{file}" for fit in ("prior", "final") for file in (*MODELS, *TABLES)]
FAULTS: dict[str, Callable[[Path], None]] = {
    "no data": lambda home: None,
    "params are not YAML": lambda home: _write(home / "params.yaml", b"shop: [simulated\nshops: }"),
    "params are empty": lambda home: _write(home / "params.yaml", b""),
    "params are not text": lambda home: _write(home / "params.yaml", b"\xff\xfe\x00shop"),
    "no params": lambda home: (home / "params.yaml").unlink(),
    "an unknown key": _rewritten(
        lambda section: section | {"nonsense": 1} if isinstance(section, dict) else section
    ),
    "a wrong type": _rewritten(_wrong),
    "no sections": _rewritten(lambda section: None),
    "shop.yaml is not YAML": _files(b"name: [simulated", "data/shop.yaml"),
    "shop.yaml is a list": _files(b"- simulated", "data/shop.yaml"),
    "truncated and empty parquet": _all(
        _files(b"PAR1" + bytes(range(200)), *(f"data/{place}.parquet" for place in PARQUETS[::2])),
        _files(b"", *(f"data/{place}.parquet" for place in PARQUETS[1::2]), "data/features/text.npy"),
    ),
    "parquet files of another program": lambda home: [
        _other(home / f"data/{place}.parquet") for place in PARQUETS
    ],
    "bytes where our JSON should be": _all(
        _foreign_bundle(b"\xff\xfe{"),
        _files(b"\xff\xfe{", *(f"data/reports/{name}.json" for name in REPORTS)),
        _files(b"\xffnotes\n", "run/simulated/stages.jsonl", "run/simulated/redis.pid"),
    ),
    "files of another program": _all(
        _foreign_bundle(b'{"name": "another program", "version": 2}'),
        _files(b'["other"]', *(f"data/reports/{name}.json" for name in REPORTS), "run/simulated/redis.pid"),
        _files(b"\x93NUM\x00", *FITTED, "data/features/text.npy", "data/models/ranker/ranker.txt"),
    ),
}
RUNS_ON = ("rollout watch",)  # until the canary ends, or somebody interrupts it
TELLS_BY_ITS_CODE = ("status",)  # its table is the answer: 1 where something does not run


def _home(folder: Path, patch: pytest.MonkeyPatch, registry: Path) -> Path:
    """A project folder with its constants and nothing else; what would run on is not started."""
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    patch.setenv("ENDCAP_HOME", str(folder))
    patch.chdir(folder)
    place = folder / "run/simulated/mlflow.db"
    place.parent.mkdir(parents=True)
    shutil.copy(registry, place)

    def fails(_: Any, **how: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(["false"], **how)

    started = SimpleNamespace(**{**vars(subprocess), "Popen": fails})
    patch.setattr("pipelines.local.process.subprocess", started)
    patch.setattr("pipelines.local.story.subprocess", started)
    patch.setattr("uvicorn.run", lambda *_, **__: None)
    patch.setattr("pipelines.local.supervisor.serve", lambda *_: None)
    patch.setattr("monitoring.alerting.lookout.Lookout.run", lambda *_: None)  # it would go on in later tests
    return folder


@contextmanager
def _patience(call: str) -> Iterator[None]:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0.5 if call in RUNS_ON else 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fault_of(call: str) -> str:
    """Runs it; what is wrong with the way it ended, empty where nothing is."""
    told = StringIO()
    with pytest.MonkeyPatch.context() as patch, _patience(call):
        patch.setattr(terminal, "_own", told)  # what libraries say goes to a log
        code = cli.run(call.split())
    err = told.getvalue()
    ours = [line for line in err.splitlines() if line.startswith("endcap: ")]
    if "Traceback" in err or "bug of Endcap" in err:
        return err
    if call in RUNS_ON and code in (0, cli.INTERRUPTED):
        return ""
    if code in (1, 2):
        usage = code == 2 and "Usage: " in err
        return "" if len(ours) == 1 or usage or call.split()[0] in TELLS_BY_ITS_CODE else f"{code}: {err}"
    return "" if code == 0 and not ours else f"{code}: {err}"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_that_meets_a_fault_ends_with_one_line_of_ours(
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    empty_registry: Path,
    redis_url: str,
) -> None:
    wrong = {}
    for n, call in enumerate(CALLS):
        home = _home(tmp_path / str(n), monkeypatch, empty_registry)
        monkeypatch.setenv("REDIS_URL", redis_url)
        FAULTS[fault](home)
        if text := fault_of(call):
            wrong[call] = text
    assert not wrong, _listed(wrong)


def _listed(wrong: dict[str, str]) -> str:
    return "\n\n".join(f"=== {call}\n{text}" for call, text in wrong.items())


def test_without_redis_every_job_says_so_or_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", NOWHERE)
    wrong = {}
    for n, call in enumerate(CALLS):
        _home(tmp_path / str(n), monkeypatch, empty_registry)
        if text := fault_of(call):
            wrong[call] = text
    assert not wrong, _listed(wrong)


@pytest.fixture(scope="module")
def shop_with_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny simulated shop up to its features: what a job writes from is there."""
    folder = tmp_path_factory.mktemp("shop") / "home"
    folder.mkdir()
    text = (ROOT / "params.yaml").read_text()
    (folder / "params.yaml").write_text(
        text.replace(
            "simulated: {departments: 8, skus: 2500, sessions: 15000}",
            "simulated: {departments: 4, skus: 400, sessions: 2500}",
        )
    )
    with params.home(folder):
        for job in ("simulate", "ingest", "features"):
            assert cli.run([job]) == 0
    return folder


@pytest.mark.parametrize("trouble", ["full disk", "read-only home"])
def test_a_disk_that_takes_nothing_is_one_line(
    trouble: str,
    shop_with_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    empty_registry: Path,
    redis_url: str,
) -> None:
    for job in cli.places():  # nobody may not read where the libraries are installed for root
        cli.function_of(job)
    monkeypatch.setenv("REDIS_URL", redis_url)
    wrong = {}
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        home = _home(Path(name) / "home", monkeypatch, empty_registry)
        shutil.copytree(shop_with_data, home, dirs_exist_ok=True)
        for path in (home, *home.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444) if trouble == "read-only home" else None
        for call in CALLS:
            with full_disk() if trouble == "full disk" else as_somebody_else():
                if text := fault_of(call):
                    wrong[call] = text
        for path in (home, *home.rglob("*")):
            path.chmod(0o755)
    assert not wrong, _listed(wrong)
