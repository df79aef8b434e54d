"""Nothing half-written is trusted, and nothing of it stays: files of a killed process, of a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from shops import tiny_bundle

from feature_repo.errors import EndcapError
from feature_repo.files import whole, write_json
from pipelines.release.registry import Registry, RegistryError
from serving.errors import BundleError
from serving.release import bundle

DRAFT = (
    "with whole(Path(sys.argv[1])) as draft:\n    draft.mkdir(); (draft / 'a').touch()\n"
    "    print(1, flush=True); time.sleep(60)"
)


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    script = f"import sys, time; from pathlib import Path; from feature_repo.files import whole\n{DRAFT}"
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "b[1]")], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"1\n"
    with whole(tmp_path / "b[1]") as draft:
        draft.touch()
    assert (tmp_path / f".b[1].{child.pid}").is_dir()  # it is at work
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    write_json(tmp_path / "b[1]", {})
    assert [path.name for path in tmp_path.iterdir()] == ["b[1]"]


def test_a_full_disk_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(OSError), whole(tmp_path / "a.json") as draft:
        draft.mkdir()
        (draft / "part").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert b"old" in (tmp_path / "a.json").read_bytes()


@pytest.mark.parametrize("name", bundle.FILES)
def test_a_bundle_of_which_a_file_was_cut_short_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    path = tiny_bundle.make(tmp_path, n=40, trees=2)
    file = path / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(BundleError, match=rf"{name}.*sha256"):
        bundle.verify(path)


def test_a_store_of_mlflow_that_is_garbled_is_told_with_what_it_means(tmp_path: Path) -> None:
    store = tmp_path / "mlflow.db"
    store.write_bytes(b"no database at all" * 500)
    with pytest.raises(RegistryError, match=r"registry: cannot open sqlite:.*Redis still says what serves"):
        Registry(f"sqlite:///{store}")


def test_a_manifest_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tiny_bundle.make(tmp_path, n=40, trees=2)
    manifest = path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    with pytest.raises(EndcapError, match=r"the manifest.*endcap bundle"):
        bundle.verify(path)
