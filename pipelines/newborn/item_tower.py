"""The item tower of a release: what the catalogue says of an item -> its vector, by the code of training."""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort
import orjson
import pyarrow as pa

from feature_repo.events import ITEM_SCHEMA
from feature_repo.online.newborns import DIGEST_BYTES
from serving.release import bundle
from training.dataset import Catalogue
from training.two_tower.encoder import WIDTH
from training.two_tower.item_features import INPUTS, Vocabulary, item_features

READ = ("title", "category_path", "brand", "price", "margin")  # accessories are not in the online catalogue
Row = Mapping[str, Any]


def catalogue_of(items: Sequence[str], rows: Sequence[Row]) -> Catalogue:
    """Rows of `item_catalogue` as training reads a catalogue."""
    columns = {name: [row[name] for row in rows] for name in READ}
    nothing = {field.name: [None] * len(items) for field in ITEM_SCHEMA}
    return Catalogue(pa.table(nothing | {"item_id": list(items)} | columns, schema=ITEM_SCHEMA))


class ItemTower:
    """`ids` are those that the release knows; `encoder` names its text encoder, "" where it had none."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.space: str = manifest["space"]
        self.encoder: str = manifest.get("encoder", "")
        self.ids = frozenset(orjson.loads((path / "item_ids.json").read_bytes()))
        words = json.loads((path / "item_words.json").read_text())
        self._words = Vocabulary(**{name: tuple(values) for name, values in words.items()})
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(
            str(path / "item_tower.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.width: int = self._session.get_inputs()[0].shape[1]  # of a text vector

    @classmethod
    def load(cls, path: Path) -> Self:
        """Of the bundle at `path`. Raises BundleError where it is damaged."""
        return cls(path, bundle.verify(path))

    def inputs(self, catalogue: Catalogue, texts: Sequence[str]) -> list[bytes]:
        """Of each item a digest of all that its vector is made of; `texts` as spec_texts gives them."""
        coded = item_features(catalogue, np.zeros((len(catalogue), WIDTH), np.float32), self._words)
        codes = np.column_stack([coded.categories, coded.brand, coded.price, coded.margin])
        return [
            blake2b(f"{self.encoder}\n{code.tolist()}\n{text}".encode(), digest_size=DIGEST_BYTES).digest()
            for code, text in zip(codes, texts, strict=True)
        ]

    def vectors(self, catalogue: Catalogue, text: np.ndarray) -> np.ndarray:
        """float32 (n, d), not normalised; `text` float32 (n, 384), zeros where no text is known."""
        features = item_features(catalogue, text[:, : self.width], self._words)
        feeds = {entry.name: getattr(features, entry.name) for entry in self._session.get_inputs()}
        assert feeds.keys() <= set(INPUTS)
        (found,) = self._session.run(["vector"], feeds)
        return np.asarray(found, np.float32)
