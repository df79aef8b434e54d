"""A release is whole or refused: what is in it decides its name, and every message says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import pytest
import torch
from shops import tiny_bundle

from feature_repo.assemble.vectorize import COLUMNS
from serving.errors import BundleError
from serving.rankers import forest
from serving.release import bundle


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    shutil.copyfile(tiny_bundle.PARAMS, folder / "params.yaml")
    return folder


@pytest.fixture(scope="module")
def built(home: Path) -> Path:
    return tiny_bundle.make(home)


@pytest.fixture
def copy(built: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENDCAP_HOME", str(home))
    return Path(shutil.copytree(built, tmp_path / built.name))


def rewrite(path: Path, **changes: Any) -> None:
    file = path / "manifest.json"
    file.write_bytes(orjson.dumps({**orjson.loads(file.read_bytes()), **changes}))


def reseal(path: Path, **changes: Any) -> None:
    """Make the manifest agree with changed files again, as a careless hand would."""
    manifest = orjson.loads((path / "manifest.json").read_bytes()) | changes
    files = {name: bundle._file_hash(path / name) for name in bundle.FILES}
    manifest["files"] = files
    rewrite(path, **changes, files=files, digest=bundle.bundle_digest(manifest))


def test_a_loaded_bundle_is_what_was_written(copy: Path) -> None:
    release = bundle.load(copy)
    assert release.digest == copy.name
    models = release.models
    assert models.ids[:2] == ["item-0", "item-1"] and release.rails["popular"][0] == "item-59"
    assert np.array_equal(models.item_vectors, np.load(copy / "item_vectors.npy"))
    assert models.covisit.shape == models.ease.shape == (60, 60)
    assert release.retrieve.k == 120 and next(iter(release.retrieve.quotas)) == "shown"
    assert release.manifest["columns"] == list(COLUMNS) and release.manifest["items"] == 60


def test_the_exported_tower_equals_the_original(copy: Path) -> None:
    vectors = np.load(copy / "item_vectors.npy")
    torch.manual_seed(0)
    tower = tiny_bundle.Tower(60, 64).eval()
    tower.embed.weight.data[1:] = torch.from_numpy(vectors)
    items = np.zeros((1, 20), np.int64)
    items[0, -3:] = (5, 62, 60)  # one that came after the fit
    newborn = np.random.default_rng(3).normal(size=(1, 20, 64)).astype(np.float32)
    ages = np.linspace(0, 1e6, 20, dtype=np.float32)[None]
    kinds = (items > 0).astype(np.int64)
    context = np.array([[2, 1, 7]])
    with torch.no_grad():
        expected = tower(*map(torch.from_numpy, (items, ages, kinds, context, newborn)))[0].numpy()
    exported = bundle.load(copy).models.tower
    assert np.allclose(exported.user_vector(items, ages, kinds, context, newborn), expected, atol=1e-6)


def test_compiled_trees_equal_lightgbm_also_where_values_are_missing(copy: Path) -> None:
    x = np.random.default_rng(1).normal(size=(500, len(COLUMNS))).astype(np.float32)
    x[np.random.default_rng(2).random(x.shape) < 0.3] = np.nan
    ranker = forest.load(copy / "ranker.txt")
    expected = lightgbm.Booster(model_file=str(copy / "ranker.txt")).predict(x)
    assert isinstance(ranker, forest.Forest)
    assert np.allclose(ranker.predict(x), expected, rtol=0, atol=1e-6)
    stock = forest.StockForest(copy / "ranker.txt")
    assert np.allclose(stock.predict(x), expected, rtol=0, atol=1e-6)
    parts = lightgbm.Booster(model_file=str(copy / "ranker.txt")).predict(x, pred_contrib=True)
    assert np.array_equal(stock.contributions(x), parts)
    (copy / "ranker.txt").write_text("no trees")
    with pytest.raises(ValueError, match=r"Unknown model format"):
        forest.StockForest(copy / "ranker.txt")


def test_trees_are_compiled_once_and_where_that_fails_lightgbm_serves(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forest.load(copy / "ranker.txt")
    compiled = forest.compiled_path(copy / "ranker.txt")
    before = compiled.stat().st_mtime_ns
    forest.load(copy / "ranker.txt")
    assert compiled.stat().st_mtime_ns == before
    monkeypatch.setattr(forest, "COMPILE_LIMIT_S", 0.001)
    compiled.unlink()
    assert isinstance(forest.load(copy / "ranker.txt"), forest.StockForest)
    assert "stock LightGBM" in caplog.text


def test_equal_content_has_one_digest_and_another_setting_another(home: Path, built: Path) -> None:
    folder = home / "parts" / "0"
    fields = tiny_bundle.settings()
    assert (
        bundle.write(folder, {**fields, "metrics": {"ndcg_at_12": 0.3}}, home / "data" / "bundles") == built
    )
    quotas = dict(reversed(fields["retrieve"]["quotas"].items()))  # the order of the sources counts
    other = {**fields, "retrieve": {**fields["retrieve"], "quotas": quotas}}
    assert bundle.write(folder, other, home / "other").name != built.name


def test_a_bundle_of_before_the_window_of_purchases_bars_them_as_it_did(copy: Path) -> None:
    retrieve = orjson.loads((copy / "manifest.json").read_bytes())["retrieve"]
    assert bundle.load(copy).retrieve.bought_days == retrieve.pop("bought_days")
    reseal(copy, retrieve=retrieve)
    assert bundle.load(copy).retrieve.bought_days == 365
    reseal(copy, retrieve=retrieve | {"colour": 1})
    with pytest.raises(BundleError, match=r"retrieve is \['colour', .* expected .*Next: build it again"):
        bundle.load(copy)


def test_a_changed_byte_is_refused_naming_the_file(copy: Path) -> None:
    with (copy / "als_items.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    with pytest.raises(BundleError, match=r"als_items\.npy: sha256 is .* expected .*Next: build it again"):
        bundle.load(copy)


def test_a_missing_file_is_refused_naming_it(copy: Path) -> None:
    (copy / "ease.npz").unlink()
    with pytest.raises(BundleError, match=r"ease\.npz: sha256 is 'missing"):
        bundle.load(copy)


def test_vectors_of_another_space_are_refused_even_when_the_hashes_are_made_to_fit(copy: Path) -> None:
    np.save(copy / "item_vectors.npy", np.load(copy / "item_vectors.npy")[::-1])
    reseal(copy)
    with pytest.raises(BundleError, match="embedding space"):
        bundle.load(copy)


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("columns", [*COLUMNS[1:], COLUMNS[0]], "columns"),
        ("schema", "0" * 16, "feature schema"),
        ("digest", "0" * 16, "digest"),
        ("diversify", {"trade_off": 0.9, "category_weight": 0.7}, "digest"),
    ],
)
def test_a_manifest_that_this_program_cannot_honour_is_refused(
    copy: Path, field: str, value: object, what: str
) -> None:
    rewrite(copy, **{field: value})
    with pytest.raises(BundleError, match=rf"manifest\.json: {what} is "):
        bundle.load(copy)


def test_tables_of_another_catalogue_are_refused(copy: Path) -> None:
    np.save(copy / "als_items.npy", np.zeros((59, 16), np.float32))
    reseal(copy)
    with pytest.raises(BundleError, match=r"als_items\.npy: size is 59, expected 60"):
        bundle.load(copy)


@pytest.mark.parametrize("name", ["user_tower.onnx", "ranker.txt", "covisit.npz", "rails.json"])
def test_a_file_that_is_not_its_format_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"not this")
    files = {name: bundle._file_hash(copy / name) for name in bundle.FILES}
    reseal(copy, space=bundle.space_id(files))
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        bundle.load(copy)


def test_settings_that_this_program_does_not_know_are_refused_by_name(copy: Path) -> None:
    manifest = orjson.loads((copy / "manifest.json").read_bytes())
    reseal(copy, diversify={**manifest["diversify"], "novelty": 0.1})
    with pytest.raises(BundleError, match=r"manifest\.json: diversify is .*novelty.*, expected "):
        bundle.load(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": 3}'])
def test_a_manifest_that_is_no_manifest_is_refused(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: the manifest"):
        bundle.load(copy)


def test_a_bundle_is_not_written_without_all_its_parts(home: Path, built: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no user_tower\.onnx"):
        bundle.write(tmp_path, tiny_bundle.settings(), tmp_path)
    with pytest.raises(BundleError, match="no feature_service"):
        bundle.write(home / "parts" / "0", {}, tmp_path)
