"""What a newcomer reads: a line per stage, a shop in plain words, and nothing that a library says."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shops.simulated_weeks import tiny_run

from feature_repo.errors import EndcapError
from pipelines import cli
from pipelines.demo import demo, window
from pipelines.local import install, story

ROOT = Path(__file__).resolve().parents[3]
REPRO = """\
Stage 'simulate' didn't change, skipping
Stage 'ingest' is cached - skipping run, checking out outputs

Running stage 'validate_raw':
> endcap validate raw
events 36/36 expectations hold
Updating lock file 'dvc.lock'

Running stage 'two_tower@prior':
> endcap two_tower --fit prior
endcap: data/raw: is missing
ERROR: failed to reproduce 'two_tower@prior': exited with 1
"""


def test_a_finished_stage_is_one_line_with_its_time_and_all_else_is_in_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story.console, "_file", sys.stdout)
    log = io.StringIO()
    assert story._stages(io.StringIO(REPRO), log) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[0] == "validate_raw" and line.split()[2] == "s"
    assert len(line) <= 80
    assert log.getvalue() == REPRO


def test_a_shop_is_shown_in_lines_that_fit_a_terminal() -> None:
    run = tiny_run()
    lines = list(window.view("tiny", run.events, run.items))
    assert max(map(len, lines)) <= 78
    text = "\n".join(lines)
    assert "400 products" in text and "Kitchen" in text and "most looked at" in text
    prices = sum(f"{price:,.2f}" in text for price in run.items["price"].to_pylist())
    assert prices >= window.BEST
    steps = [line for line in lines if line[2:3] == ":" and line[5:6] == ":"]
    assert 4 <= len(steps) <= window.STEPS and "buys" in steps[-1]


def test_a_shop_without_prices_categories_or_orders_is_shown_too() -> None:
    run = tiny_run()
    items = run.items.set_column(5, "price", pa.nulls(len(run.items), pa.float64()))
    items = items.set_column(3, "category_path", pa.nulls(len(items), pa.string()))
    views = run.events.filter(pa.compute.equal(run.events["type"], "product_viewed"))
    text = "\n".join(window.view("bare", views, items))
    assert "(none)" in text and "0 sold" in text
    assert "unknown" in text and "0.00" not in text  # no price is made up


def test_what_this_platform_needs_beside_the_closure_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis on an older patch of Python, or torch's default wheel on Linux."""
    needs = ("Requires-Dist: Here>=1", 'Requires-Dist: gone>=4; python_version >= "3"')
    never = ('Requires-Dist: windows-only; python_version < "3"', 'Requires-Dist: luxury; extra == "all"')
    for name, lines in (("one", (*needs, *never)), ("here", ())):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("\n".join(("Metadata-Version: 2.1", f"Name: {name}", *lines, "")))
    monkeypatch.setattr(install, "SITE", tmp_path)
    assert install.missing() == ["gone>=4"]


def test_batches_install_every_pin_once_and_torch_by_name_alone() -> None:
    lines = install.pins()
    asked = [line for batch in install.batches(lines) for line in batch]
    asked += [lines[name] for name in install.FIRST]
    assert sorted(asked) == sorted(lines.values())
    assert install.batches(lines)[0] == ["torch==2.13.0"]
    assert max(map(len, install.batches(lines))) <= install.BATCH


def test_what_the_window_imports_is_installed_first() -> None:
    script = "import sys; from pipelines import cli; cli.run(['window', '--data', '?']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "shop: '?' is unknown" in done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    owners = metadata.packages_distributions()
    wanted = {install.canonical(owner) for name in loaded for owner in owners.get(name, ())}
    assert "pydantic" in wanted
    optional = {"charset-normalizer", "cloudpickle"}  # taken by others where they are there
    assert wanted - set(install.FIRST) <= {"endcap", "setuptools", *optional}


def test_a_package_that_was_cut_off_is_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "SITE", tmp_path)
    for name in ("whole-1.dist-info", "half-1.dist-info"):
        (tmp_path / name).mkdir()
    (tmp_path / "whole-1.dist-info" / "INSTALLER").write_text("pip\n")
    install.forget_halves()
    assert [path.name for path in tmp_path.iterdir()] == ["whole-1.dist-info"]


NOISY = """
import os, sys, warnings
from feature_repo.errors import EndcapError
from pipelines import cli
def noisy(name: str = "x"):
    warnings.warn("old habit", DeprecationWarning)
    print("a library on stderr", file=sys.stderr)
    os.write(2, b"a library beneath python\\n")
    print("what we say")
    if name == "full": raise OSError(28, "No space left on device")
    if name == "bug": raise KeyError("lost")
    raise EndcapError("field: value; allowed: others")
cli.places = lambda: {"noisy": "noisy:noisy"}
sys.modules["noisy"] = sys.modules["__main__"]
sys.exit(cli.run(["noisy", *sys.argv[1:]], libraries_apart=True))
"""


def noisy(tmp_path: Path, *args: str) -> tuple[list[str], str]:
    """Lines on stderr of a job full of libraries' chatter, and its log."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", NOISY, *args],
        env={"ENDCAP_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout in ("what we say\n", "") and done.returncode in (1, 2)
    return done.stderr.splitlines(), (tmp_path / "run/simulated/logs/noisy.log").read_text()


def test_libraries_talk_to_the_log_and_our_error_is_the_one_line_on_the_terminal(tmp_path: Path) -> None:
    told, log = noisy(tmp_path)
    assert told == ["endcap: field: value; allowed: others"]
    for chatter in ("old habit", "a library on stderr", "a library beneath python", "endcap noisy"):
        assert chatter in log


def test_a_log_that_has_grown_long_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "run/simulated/logs").mkdir(parents=True)
    (tmp_path / "run/simulated/logs/noisy.log").write_text("of last year\n" * 100_000)
    _, log = noisy(tmp_path)
    assert "of last year" not in log and "old habit" in log
    assert "old habit" in noisy(tmp_path)[1].partition("old habit")[2]  # a short one goes on


def test_a_full_disk_is_one_line_and_a_bug_keeps_its_traceback_in_the_log(tmp_path: Path) -> None:
    told, _ = noisy(tmp_path, "--name", "full")
    assert len(told) == 1 and "no space left on the disk" in told[0]
    told, log = noisy(tmp_path, "--name", "bug")
    assert len(told) == 1 and told[0].startswith("endcap: noisy: KeyError: 'lost'. This is a bug of Endcap; ")
    assert "noisy.log holds the traceback" in told[0]
    assert "Traceback" in log and "KeyError: 'lost'" in log


def test_wrong_usage_is_told_to_the_reader_not_to_the_log(tmp_path: Path) -> None:
    told, log = noisy(tmp_path, "--nmae", "x")
    assert any("No such option" in line for line in told)
    assert "No such option" not in log


def test_a_failed_stage_is_shown_with_the_end_of_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text("")
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setattr(story.console, "_file", sys.stdout)
    with pytest.raises(EndcapError, match=r"`dvc repro nothing` ended with .*is in logs/dvc\.log"):
        story.reproduce("nothing", Path("logs/dvc.log"))
    assert "ERROR" in capsys.readouterr().out


def test_the_summary_of_every_stage_is_known() -> None:
    assert all(cli.summary(place) for place in cli.places().values())


def test_the_demo_ends_with_five_things_to_do_within_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "data" / "raw").mkdir(parents=True)
    items = tiny_run().items
    pq.write_table(items, tmp_path / "data" / "raw" / "items.parquet")
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setattr(story.console, "_file", sys.stdout)
    slots = [{"slot": n, "item_id": item} for n, item in enumerate(items["item_id"].to_pylist()[:12])]
    demo.farewell({"items": slots}, "U001234")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[-5:]] == ["Ask", "Watch", "Read", "Stop", "Next"]
    assert items["title"][0].as_py()[:40] in "\n".join(lines)
