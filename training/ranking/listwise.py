"""ranker.kind mlp: a small network over the 28 columns, by the softmax of each list.

A column enters as how far its value has come through each of its quantiles (Gorishniy et al., On Embeddings
for Numerical Features, NeurIPS 2022), unknown ones as a flag of their own. The loss is the cross-entropy
between the softmax of a list's scores and the shares of its gains (ListNet, Cao et al., ICML 2007).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from io import BytesIO
from itertools import pairwise

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from feature_repo.assemble.vectorize import COLUMNS
from training.ranking.examples import Doubles, Examples, Fitted, Floats, ndcg, shares
from training.ranking.objective import RankerParams

WIDTH = len(COLUMNS)
SEEN, SHUFFLED = 50_000, 200  # rows for quantiles, lists of validation for shares
FAR = 1e30  # infinite values end here


class Network(nn.Module):
    """float32 (n, 28), NaN for unknown -> float32 (n,); `edges` (28, bins + 1) ascend along a column."""

    low: Tensor
    inverse: Tensor

    def __init__(self, edges: Tensor, hidden: tuple[int, ...]) -> None:
        super().__init__()
        width = edges.diff(dim=1)
        self.register_buffer("low", edges[:, :-1].clone())
        self.register_buffer("inverse", torch.where(width > 0, 1 / width, 0.0))
        sizes = (WIDTH * edges.shape[1], *hidden)
        layers: list[nn.Module] = []
        for into, out in pairwise(sizes):
            layers += [nn.Linear(into, out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, columns: Tensor) -> Tensor:
        unknown = torch.isnan(columns)
        value = torch.where(unknown, torch.zeros_like(columns), columns).clamp(-FAR, FAR)
        come = ((value[..., None] - self.low) * self.inverse).clamp(0, 1)  # (n, 28, bins)
        come = torch.where(unknown[..., None], torch.zeros_like(come), come)
        score: Tensor = self.layers(torch.cat([come.flatten(1), unknown.float()], 1))
        return score[:, 0]


def fit(train: Examples, valid: Examples, params: RankerParams) -> Fitted:
    """Choose the number of epochs on `valid`, then fit both together with that number."""
    curve: list[float] = []
    states: list[Network] = []

    def look(network: Network) -> None:
        curve.append(ndcg(valid, _scores(network, valid.matrix), params.k))
        states.append(deepcopy(network))

    with _deterministic(params):
        _train(train, params, params.mlp.epochs, look)
        best = int(np.argmax(curve)) + 1  # of few, the last with small steps
        trial = states[best - 1]
        scores = _scores(trial, valid.matrix)
        lost = _lost(trial, valid, params)
    with _deterministic(params):
        final = _train(train + valid, params, best)
        files = _onnx(final, train.matrix), _onnx(trial, train.matrix)
        told = "epochs", "the NDCG@12 that shuffling costs"
        return Fitted(*files, best, tuple(curve), scores, shares(lost), *told)


def _train(
    examples: Examples, params: RankerParams, epochs: int, look: Callable[[Network], None] | None = None
) -> Network:
    asked, rng = params.mlp, np.random.default_rng(params.seed)
    seen = examples.matrix[:: max(1, len(examples.matrix) // SEEN)]
    network = Network(torch.from_numpy(_edges(seen, asked.bins)), asked.hidden)
    optimizer = torch.optim.AdamW(network.parameters(), asked.learning_rate, weight_decay=asked.weight_decay)
    gain = torch.from_numpy(np.array(params.gains, np.float32)[examples.label])
    matrix, starts = torch.from_numpy(examples.matrix), np.cumsum(examples.group) - examples.group
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = asked.learning_rate * (1 + np.cos(np.pi * epoch / asked.epochs)) / 2
        order = rng.permutation(len(starts))
        network.train()
        for lists in np.split(order, range(asked.lists, len(order), asked.lists)):
            size = examples.group[lists]
            place = np.arange(size.max())
            taken = torch.from_numpy(place < size[:, None])  # (lists, places)
            rows = torch.from_numpy(starts[lists][:, None] + place)[taken]
            score = torch.full(taken.shape, -torch.inf).masked_scatter(taken, network(matrix[rows]))
            wanted = torch.zeros(taken.shape).masked_scatter(taken, gain[rows])
            share = wanted / wanted.sum(1, keepdim=True).clamp(min=1e-9)
            loss = -(share[taken] * torch.log_softmax(score, 1)[taken]).sum() / len(lists)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if look:
            look(network)
    return network


def _edges(matrix: Floats, bins: int) -> Floats:
    """float32 (28, bins + 1): quantiles of what is known of each column, zeros where nothing is."""
    known = [column[np.isfinite(column)] for column in matrix.T]
    steps = np.linspace(0, 1, bins + 1)
    return np.array([np.quantile(c, steps) if len(c) else np.zeros(bins + 1) for c in known], np.float32)


def _scores(network: Network, matrix: Floats) -> Doubles:
    network.eval()
    with torch.no_grad():
        parts = [network(part) for part in torch.from_numpy(matrix).split(20_000)]
    return torch.cat(parts).numpy().astype(np.float64)


def _lost(network: Network, valid: Examples, params: RankerParams) -> Doubles:
    """NDCG@k that is lost where one column (28,) is shuffled; none is worth less than nothing."""
    group, rng = valid.group[:SHUFFLED], np.random.default_rng(params.seed)
    few = Examples(valid.matrix[: group.sum()], valid.label[: group.sum()], group)
    whole, found = ndcg(few, _scores(network, few.matrix), params.k), np.zeros(WIDTH)
    for column in range(WIDTH):
        other = few.matrix.copy()
        other[:, column] = rng.permutation(other[:, column])
        found[column] = max(0.0, whole - ndcg(few, _scores(network, other), params.k))
    return found


def _onnx(network: Network, matrix: Floats) -> bytes:
    """One file, any number of rows; `base` in it is the middle candidate, null where most are unknown."""
    file, columns = BytesIO(), [column[~np.isnan(column)] for column in matrix.T]
    torch.onnx.export(
        network.eval(),
        (torch.zeros(2, WIDTH),),
        file,  # type: ignore[arg-type]  # its stub knows no buffer
        input_names=["columns"],
        output_names=["score"],
        dynamic_axes={"columns": {0: "rows"}, "score": {0: "rows"}},
        opset_version=17,
        dynamo=False,  # the other exporter puts the weights into a second file
    )
    model = onnx.load_from_string(file.getvalue())
    base = [float(np.median(known)) if 2 * len(known) > len(matrix) else None for known in columns]
    onnx.helper.set_model_props(model, {"base": json.dumps(base)})
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _deterministic(params: RankerParams) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(params.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(params.seed)
            yield
    finally:
        torch.set_num_threads(threads)
