"""The user tower at serving time: one ONNX session, one thread."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from serving.types import Floats, Rows


class UserTower:
    """user_tower.onnx: history and context -> a vector in the space of item_vectors.npy."""

    def __init__(self, path: Path) -> None:
        self._session = session(path)

    def user_vector(self, items: Rows, ages: Floats, kinds: Rows, context: Rows, newborn: Floats) -> Floats:
        """int64 (1, 20), float32 (1, 20) seconds, int64 (1, 20), int64 (1, 3), float32 (1, 20, d) -> (d,).

        L2-normalised. `items`: 0 for padding, else catalogue row + 1, newest last. `kinds`: 0 padding,
        1 view, 2 cart, 3 purchase. `context`: encode_context of features/context.py. `newborn`: the item
        tower's vectors, read where a row is beyond the release's own.
        """
        feeds = {"items": items, "ages": ages, "kinds": kinds, "context": context, "newborn": newborn}
        vector: Floats = np.asarray(self._session.run(["vector"], feeds)[0])[0]
        return vector


def session(path: Path) -> ort.InferenceSession:
    """One intra-op thread that does not spin: a second thread makes the tail five times longer under load."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
