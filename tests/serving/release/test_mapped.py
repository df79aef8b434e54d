"""Workers of one machine hold the arrays of a release once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shops.tiny_bundle import make

from feature_repo.places import CACHE
from serving.release import bundle
from serving.release.mapped import KEPT, shared
from serving.stages.index import Hnsw, IndexParams

HELD = """
import sys
from pathlib import Path
from serving.release import bundle
found = bundle.load(Path(sys.argv[1])).models
found.covisit.data.sum(), found.item_vectors.sum(), found.ease.indices.sum()  # every page is touched
own, name = {}, ""
for line in open("/proc/self/smaps"):
    if "-" in line.split()[0]:
        name = line.split()[-1]
    elif line.startswith(("Anonymous", "Rss")) and ".arrays/" in name:
        own[line.split(":")[0]] = own.get(line.split(":")[0], 0) + int(line.split()[1])
print(own["Rss"], own["Anonymous"])
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def test_a_worker_has_no_page_of_its_own_of_vectors_and_tables(home: Path) -> None:
    path = make(home, 300)
    held = subprocess.run([sys.executable, "-c", HELD, str(path)], capture_output=True, text=True, check=True)
    resident, own = map(int, held.stdout.split())
    assert resident > 300 * 100 * 8 // 1024 and own == 0


def test_what_is_shared_is_what_the_bundle_says_and_nobody_can_change_it(home: Path) -> None:
    path = make(home, 60)
    first, second = (bundle.load(path).models for _ in range(2))
    assert first.item_vectors.tobytes() == np.load(path / "item_vectors.npy").tobytes()
    assert (first.ease != second.ease).nnz == 0
    with pytest.raises(ValueError, match="read-only"):
        first.covisit.data[0] = 0


def test_a_cut_or_missing_cache_costs_memory_and_no_answer(home: Path) -> None:
    path = make(home, 60)
    bundle.load(path)
    for file in (home / CACHE).glob("*.arrays/ease.data.npy"):
        file.write_bytes(file.read_bytes()[:100])
    assert bundle.load(path).models.ease.nnz > 0  # its own copy, and the damaged one is gone
    assert not bundle.load(path).models.ease.data.flags.writeable  # made anew


def test_sets_of_arrays_that_nobody_opens_any_more_go(home: Path) -> None:
    for number in range(KEPT + 3):
        shared(f"set {number}", lambda number=number: {"one": np.full(3, number)})
    assert len(list((home / CACHE).glob("*.arrays"))) == KEPT


def test_a_graph_is_built_once_and_mapped_by_whoever_comes_later(home: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    params = IndexParams(exact_below=0, m=16, ef_construction=64, ef_search=64)
    fresh = Hnsw(vectors, params)
    made = Hnsw(vectors, params, home / "vectors.graph")
    assert (home / "vectors.graph").stat().st_size > vectors.nbytes
    mapped = Hnsw(np.zeros_like(vectors), params, home / "vectors.graph")  # these are not looked at
    for query in vectors[:20]:
        expected = fresh.search(query, 12)[0].tolist()
        assert made.search(query, 12)[0].tolist() == mapped.search(query, 12)[0].tolist() == expected
