"""The user tower on diginetica's sessions (the split of SR-GNN): ids only, by the project's own fit.

    python benchmarks/diginetica.py --share .25 --epochs 4    the newest quarter of the training sessions
    python benchmarks/diginetica.py                           all of them, 10 epochs

The last 5 % of the training sessions, in file order, which is time order, choose the epoch and give the
validation figures, by towers that never saw them. Test figures are of the same towers; with --refit, of
towers that have seen the last 5 % too. P@20: is the next item among the best 20 of all items, those of the
prefix not left out. An item that stands level with another counts as behind it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from feature_repo.clock import DAY_US
from feature_repo.events import HISTORY
from feature_repo.params import load
from training.dataset import Contacts
from training.two_tower.fit_towers import FittedTowers, fit_towers
from training.two_tower.item_features import LEVELS, ItemFeatures
from training.two_tower.towers import TwoTowerParams

DATA = Path(__file__).resolve().parents[1] / "../shared/data/diginetica"
DAYS, STEP_US = (
    20,
    1000,
)  # 5 % of the sessions begin on each of 20 made-up days; a session's contacts 1 ms apart
BEST, ROWS = 20, 512


@dataclass(frozen=True)
class Prefixes:
    """n questions: items int64 (n, HISTORY), left padded with 0, else row + 1; target int64 (n,)."""

    items: np.ndarray
    target: np.ndarray


def contacts_of(sessions: Sequence[np.ndarray]) -> Contacts:
    """Views of catalogue rows; each session is its own owner, without context."""
    length = np.array([len(s) for s in sessions])
    session = np.repeat(np.arange(len(sessions)), length)
    place = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    begins = np.arange(len(sessions)) * DAY_US * DAYS // len(sessions)
    return Contacts(
        item=np.concatenate(sessions).astype(np.int32),
        kind=np.ones(len(session), np.int8),
        ts=begins[session] + place * STEP_US,
        session=session.astype(np.int32),
        owner=session.astype(np.int32),
        context=np.zeros((len(session), 3), np.int64),
    )


def no_content(items: int) -> ItemFeatures:
    """Features of a catalogue of which nothing but the ids is known."""
    none, text = np.zeros(items, np.int64), np.zeros((items, 1), np.float32)
    return ItemFeatures(text, text, np.zeros((items, LEVELS), np.int64), none, none, none)


def prefixes_of(asked: Sequence[tuple[np.ndarray, int]]) -> Prefixes:
    """Of each prefix the 20 newest distinct items, where they stand last, as a shopper's history is kept."""
    items = np.zeros((len(asked), HISTORY), np.int64)
    for row, (prefix, _) in enumerate(asked):
        newest = list(dict.fromkeys(prefix[::-1].tolist()))[:HISTORY][::-1]
        items[row, -len(newest) :] = np.array(newest) + 1
    return Prefixes(items, np.array([target for _, target in asked], np.int64))


def ranks(towers: FittedTowers, asked: Prefixes) -> np.ndarray:
    """int64 (n,): items that stand before the target or level with it, 0 being the best."""
    found = []
    for at in range(0, len(asked.items), ROWS):
        items = torch.from_numpy(asked.items[at : at + ROWS])
        context = torch.zeros(len(items), 3, dtype=torch.int64)
        with torch.no_grad():
            users = towers.served(items, torch.zeros(items.shape), (items > 0).long(), context).numpy()
        scores = users @ towers.item_vectors.T
        target = np.take_along_axis(scores, asked.target[at : at + ROWS, None], axis=1)
        found.append((scores >= target).sum(axis=1) - 1)
    return np.concatenate(found)


def quality(rank: np.ndarray) -> tuple[float, float]:
    """P@20 and MRR@20 in %."""
    hit = rank < BEST
    return 100 * float(hit.mean()), 100 * float(np.where(hit, 1 / (rank + 1), 0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the two parquet files")
    parser.add_argument("--share", type=float, default=1.0, help="of the training sessions, the newest")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2048, help="positions per step")
    parser.add_argument(
        "--queries", type=int, default=20_000, help="validation and test prefixes asked, each"
    )
    parser.add_argument("--refit", action="store_true", help="test towers that have seen the last 5 % too")
    args = parser.parse_args()
    if not (args.data / "train_sessions.parquet").exists():
        print(f"skipped: {args.data} is absent; it holds train_sessions.parquet and test_prefixes.parquet")
        return
    params = replace(
        load("two_tower", TwoTowerParams),
        dim=args.dim,
        epochs=args.epochs,
        most_epochs=args.epochs,
        batch_tokens=args.batch,
        revisits=True,
        forget_rate=0.0,
        id_dropout=0.0,
        valid_days=1,
    )
    report(args, params)


def report(args: argparse.Namespace, params: TwoTowerParams) -> None:
    """Fit, ask and print."""
    everything = pq.read_table(args.data / "train_sessions.parquet").column("items").to_pylist()
    kept = everything[-round(args.share * len(everything)) :]
    known, rows = np.unique(np.concatenate(kept), return_inverse=True)
    sessions = np.split(rows, np.cumsum([len(s) for s in kept])[:-1])
    held_out = len(sessions) - len(sessions) // DAYS
    table = Table(title=f"{len(sessions):,} sessions, {len(known):,} items, {params.epochs} epochs at most")
    for title in ("span", "prefixes", "P@20 %", "MRR@20 %"):
        table.add_column(title, justify="right")
    start, cpu = time.perf_counter(), time.process_time()
    contacts = contacts_of(sessions)
    before = contacts.select(contacts.session < held_out)
    towers = fit_towers(before, no_content(len(known)), params, DAY_US * (DAYS - 1), said)
    asked = [(s[:k], int(s[k])) for s in sessions[held_out:] for k in range(1, len(s))]
    add(table, "validation", towers, sample(asked, args.queries))
    if args.refit:
        towers = fit_towers(contacts, no_content(len(known)), params, DAY_US * DAYS, said)
    test = pq.read_table(args.data / "test_prefixes.parquet")
    place = {item: row for row, item in enumerate(known.tolist())}
    pairs = zip(test.column("prefix").to_pylist(), test.column("next_item").to_pylist(), strict=True)
    found = [(np.array([place[i] for i in p if i in place]), place.get(n, -1)) for p, n in pairs]
    add(table, "test", towers, sample(found, args.queries))
    spent = f"{time.perf_counter() - start:.0f} s, {time.process_time() - cpu:.0f} CPU s"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    Console().print(table, f"{spent}, {peak:.1f} GB at the peak", sep="\n")


def said(epoch: object) -> None:
    print(epoch, file=sys.stderr, flush=True)


def sample(asked: list[tuple[np.ndarray, int]], most: int) -> list[tuple[np.ndarray, int]]:
    """At most `most` of them, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    return [asked[i] for i in np.sort(rng.permutation(len(asked))[:most])]


def add(table: Table, span: str, towers: FittedTowers, asked: list[tuple[np.ndarray, int]]) -> None:
    """A line of the table; a target or a whole prefix that training never met is a miss."""
    answerable = [(prefix, target) for prefix, target in asked if len(prefix) and target >= 0]
    rank = np.full(len(asked), len(towers.item_vectors))
    rank[: len(answerable)] = ranks(towers, prefixes_of(answerable))
    precision, reciprocal = quality(rank)
    table.add_row(span, f"{len(asked):,}", f"{precision:.1f}", f"{reciprocal:.1f}")


if __name__ == "__main__":
    main()
