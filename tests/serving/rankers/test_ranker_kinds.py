"""What every ranker.kind must do, from the training set to an explained answer, whatever it is made of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from shops import tiny_bundle
from shops.rankings import PARAMS, examples
from shops.storefront import SECRET_KEY, Shop, ask, items, open_shop, session_row

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import ParamsError
from feature_repo.places import SUFFIXES
from serving.errors import BundleError
from serving.rankers import boosted, readers
from serving.release import bundle
from training.ranking.examples import MODULES, Examples, Fitted, fit

ALL = ("torch", "xgboost", "lightgbm", "sklearn")  # none of which a worker of the service may load
ITEMS = 150


@dataclass
class Kind:
    """One kind, fitted; `file` is what serves, `trial` what was told of the validation span."""

    name: str
    train: Examples
    valid: Examples
    fitted: Fitted
    file: Path
    trial: Path


@pytest.fixture(scope="module", params=SUFFIXES)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    if request.param == "xgboost":
        pytest.importorskip("xgboost", reason="`make extras` installs XGBoost")
    train, valid, folder = examples(1), examples(2), tmp_path_factory.mktemp(request.param)
    fitted = fit(train, valid, replace(PARAMS, kind=request.param))
    file, trial = (folder / f"{name}{SUFFIXES[request.param]}" for name in ("ranker", "trial"))
    file.write_bytes(fitted.model)
    trial.write_bytes(fitted.trial)
    return Kind(request.param, train, valid, fitted, file, trial)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.parts(tmp_path_factory.mktemp("tiny") / "parts", n=ITEMS, trees=2)


def release(parts: Path, folder: Path, kind: Kind, content: bytes | None = None) -> Path:
    """A project folder's bundle with this kind of ranker, of `content` where it is given."""
    draft = Path(shutil.copytree(parts, folder / "draft", dirs_exist_ok=True))
    (draft / "ranker.txt").unlink()
    (draft / kind.file.name).write_bytes(kind.fitted.model if content is None else content)
    shutil.copyfile(tiny_bundle.PARAMS, folder / "params.yaml")
    return bundle.write(draft, tiny_bundle.settings(), folder / "data" / "bundles")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def test_the_same_examples_give_the_same_bytes(kind: Kind) -> None:
    again = fit(kind.train, kind.valid, replace(PARAMS, kind=kind.name))
    assert (again.model, again.trial) == (kind.fitted.model, kind.fitted.trial)
    other = fit(kind.valid, kind.train, replace(PARAMS, kind=kind.name))
    assert other.model != kind.fitted.model != kind.fitted.trial


def test_it_learns_what_is_wanted_and_says_by_which_columns(kind: Kind) -> None:
    best = kind.fitted.curve[kind.fitted.best_round - 1]
    assert best > 0.9 and len(kind.fitted.scores) == len(kind.valid.label)
    bought, viewed = kind.fitted.scores[kind.valid.label == 3], kind.fitted.scores[kind.valid.label == 1]
    assert np.median(bought) > np.median(viewed)
    shares = kind.fitted.importance()
    assert sum(shares.values()) == pytest.approx(1) and set(list(shares)[:2]) == set(COLUMNS[:2])


@pytest.mark.parametrize("reader", [readers.load, readers.plain])
def test_serving_scores_as_training_did_in_any_order_and_width_of_float(
    kind: Kind, reader: object, home: Path
) -> None:
    assert callable(reader)
    ranker, matrix = reader(kind.trial), kind.valid.matrix
    scores = ranker.predict(matrix)
    assert scores.shape == (len(matrix),) and scores.dtype == np.float32
    assert np.isnan(matrix).any()
    np.testing.assert_allclose(scores, kind.fitted.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ranker.predict(matrix.astype(np.float64)), scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ranker.predict(matrix[::-1]), scores[::-1], rtol=0, atol=1e-6)
    one_by_one = [ranker.predict(matrix[at : at + 1])[0] for at in range(40)]
    np.testing.assert_allclose(one_by_one, scores[:40], rtol=0, atol=1e-6)


def test_contributions_add_up_to_the_score_and_name_what_decides(kind: Kind, home: Path) -> None:
    ranker, rows = readers.load(kind.file), kind.valid.matrix[:30]
    parts = ranker.contributions(rows)
    assert parts is not None and parts.shape == (30, len(COLUMNS) + 1) and parts.dtype == np.float64
    np.testing.assert_allclose(parts.sum(axis=1), ranker.predict(rows), rtol=0, atol=1e-4)
    np.testing.assert_allclose(ranker.contributions(rows), parts, rtol=0, atol=0)
    sizes = np.abs(parts[:, :-1]).mean(axis=0)
    assert set(np.argsort(-sizes)[:2]) == {0, 1}


def test_a_worker_needs_no_library_of_training(kind: Kind, home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.rankers import readers; import numpy as np\n"
        f"ranker = readers.plain(Path({str(kind.file)!r}))\n"
        f"ranker.contributions(np.zeros((2, {len(COLUMNS)}), np.float32))\n"
        f"assert not sys.modules.keys() & set({ALL!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def shop(kind: Kind, parts: Path, home: Path, redis_server: str) -> Iterator[Shop]:
    with open_shop(home, release(parts, home, kind), redis_server, replay=True) as opened:
        opened.features.sessions["seen"] = session_row(("product_viewed", "item-3"), session="seen")
        yield opened


def test_the_service_answers_full_lists_by_it_and_explains_them(shop: Shop, kind: Kind) -> None:
    asked = {"user_id": None, "session_id": "seen", "as_of": 1_800_000_000_000_000}
    served = ask(shop, **asked)
    assert len(set(items(served))) == 12 and served["served_from"] == "live" and not served["degraded"]
    key = {"authorization": f"Bearer {SECRET_KEY}"}
    told = shop.client.post("/v1/explain", json={"surface": "homepage_hero", **asked}, headers=key).json()
    assert [one["item_id"] for one in told["items"]] == items(served)
    for one in told["items"]:
        assert sum(term["adds"] for term in one["contributions"]) == pytest.approx(one["score"], abs=1e-4)
        assert {"base", COLUMNS[0]} <= {term["name"] for term in one["contributions"]}


@pytest.mark.parametrize("content", ["nothing", "other words", "half of it", "another width"])
def test_a_file_that_is_no_ranker_of_its_kind_is_refused_by_its_name(
    content: str, kind: Kind, parts: Path, home: Path
) -> None:
    if kind.name == "lightgbm" and content == "half of it":
        pytest.skip("LightGBM's reader ends the process: there the checksum alone refuses it")
    model = {"nothing": b"", "other words": b"not this", "half of it": kind.fitted.model[:-4000]}
    path = release(parts, home, kind, model.get(content, narrow(kind)))
    with pytest.raises(BundleError, match=rf"{kind.file.name}: (the content|output of 2 rows) is .*Next: "):
        bundle.load(path)


def narrow(kind: Kind) -> bytes:
    """A ranker of the kind that reads fewer columns."""
    if kind.name == "lightgbm":
        return kind.fitted.model.replace(b"max_feature_idx=27", b"max_feature_idx=3")
    if kind.name == "xgboost":
        return kind.fitted.model.replace(b'"num_feature":"28"', b'"num_feature":"3"')
    return kind.fitted.model.replace(b"\x08\x1c", b"\x08\x03")  # a dimension of 28, as protobuf has it


def test_a_ranker_that_changed_or_is_missing_is_refused_by_its_name(
    kind: Kind, parts: Path, home: Path
) -> None:
    path = release(parts, home, kind)
    assert bundle.load(path).manifest["files"][kind.file.name]
    (path / kind.file.name).write_bytes(kind.fitted.trial)
    with pytest.raises(BundleError, match=rf"{kind.file.name}: sha256 is .*Next: build it again"):
        bundle.load(path)
    (path / kind.file.name).unlink()
    with pytest.raises(BundleError, match=rf"{kind.file.name}: sha256 is 'missing"):
        bundle.load(path)


def test_where_xgboost_is_not_installed_both_sides_name_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    boosted._library.cache_clear()
    with pytest.raises(ParamsError, match=r"ranker.kind: 'xgboost' .* Next: `make extras`"):
        fit(examples(1), examples(2), replace(PARAMS, kind="xgboost"))
    with pytest.raises(BundleError, match=r"XGBoost is 'not installed'.*Next: `make extras`"):
        readers.load(tmp_path / "ranker.json")
    boosted._library.cache_clear()


def test_every_kind_has_a_module_that_fits_it_and_a_file_of_its_own() -> None:
    assert MODULES.keys() == SUFFIXES.keys() and len(set(SUFFIXES.values())) == len(SUFFIXES)
