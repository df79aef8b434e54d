"""From contacts to batches of the user tower: windows of at most HISTORY positions, each with its query.

A *segment* is what a shopper's device remembers: all visits of an owner, or, where a coin decides to forget,
from one visit's start on. That is how one model learns to serve known users and anonymous visitors.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from feature_repo.events import HISTORY
from training.dataset import Contacts

_BUCKETS = np.array([3, 4, 6, 9, 13, HISTORY])


@dataclass(frozen=True)
class Batch:
    """b windows of t positions, left padded, inputs as in `UserTower.forward`.

    target   int64 (b, t)  catalogue row of the next item of the query's visit that is not behind; -1 for none
    asked    int64 (b, t)  time at which the query of this position is over: its next contact, us
    behind   bool (b, t, t)  (query, place): contacted in the query's visit by then, so no answer; nowhere if
                             revisits count
    """

    items: np.ndarray
    ages: np.ndarray
    kinds: np.ndarray
    wait: np.ndarray
    context: np.ndarray
    target: np.ndarray
    asked: np.ndarray
    behind: np.ndarray

    def barred(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is no answer to the n positions of `chosen` bool (b, t): position 0..n-1, catalogue row.

        Both int64 of one length; an item that stands twice in a window is named twice.
        """
        windows, places = np.nonzero(chosen)
        position, place = np.nonzero(self.behind[windows, places])
        return position, self.items[windows[position], place] - 1


@dataclass(frozen=True)
class Runs:
    """Contacts with immediate repeats of an item in a session merged: view, cart, purchase is one run.

    A run has two faces: as it was after its first contact (`first_*`) and after its last (`last_*`, the kind
    being the strongest). Arrays of length n, otherwise as in Contacts.
    """

    item: np.ndarray
    session: np.ndarray
    owner: np.ndarray
    context: np.ndarray
    first_ts: np.ndarray
    last_ts: np.ndarray
    first_kind: np.ndarray
    last_kind: np.ndarray


def merge_repeats(contacts: Contacts, revisits: bool = False) -> Runs:
    """Runs of `contacts`, which are sorted by owner, then time; where revisits count, each is its own."""
    fresh = np.ones(len(contacts), dtype=bool)
    fresh[1:] = revisits | (np.diff(contacts.item) != 0) | (np.diff(contacts.session) != 0)
    starts = np.flatnonzero(fresh)
    ends = np.append(starts[1:], len(contacts)) - 1
    return Runs(
        item=contacts.item[starts],
        session=contacts.session[starts],
        owner=contacts.owner[starts],
        context=contacts.context[starts],
        first_ts=contacts.ts[starts],
        last_ts=contacts.ts[ends],
        first_kind=contacts.kind[starts],
        last_kind=np.maximum.reduceat(contacts.kind, starts),
    )


def batches(
    runs: Runs, rng: np.random.Generator, *, tokens: int, forget_rate: float, revisits: bool = False
) -> Iterator[Batch]:
    """One pass over all runs in batches of about `tokens` positions, windows of like length together.

    Each run stands in one window. `forget_rate` is the chance that a returning owner's visit starts from
    nothing; segments longer than a window are cut at a random offset.
    """
    n = len(runs.item)
    new_owner = np.append(True, np.diff(runs.owner) != 0)
    new_session = np.append(True, np.diff(runs.session) != 0)
    segment_start = new_owner | (new_session & (rng.random(n) < forget_rate))
    first = np.flatnonzero(segment_start)
    length = np.diff(np.append(first, n))
    of = np.repeat(np.arange(len(first)), length)  # run -> segment
    place = np.arange(n) - first[of] + 1  # 1.. in its segment; the slot before is "no contact yet"
    # Less than HISTORY - 1: the first window holds that slot and at most 19 runs.
    offset = np.where(length >= HISTORY, rng.integers(0, HISTORY - 1, len(first)), 0)
    starts = np.flatnonzero(segment_start | ((place + offset[of]) % HISTORY == 0))
    ends = np.append(starts[1:], n) - 1
    begins = segment_start[starts]
    width = ends - starts + 1 + begins
    last = (first + length - 1)[of[starts]]

    order = rng.permutation(len(starts))
    bucket = np.searchsorted(_BUCKETS, width[order])
    chunks: list[np.ndarray] = []
    for b, wide in enumerate(_BUCKETS):
        members = order[bucket == b]
        size = max(1, tokens // int(wide))
        chunks += [members[i : i + size] for i in range(0, len(members), size)]
    for c in rng.permutation(len(chunks)):
        w = chunks[c]
        yield _assemble(runs, starts[w], ends[w], last[w], begins[w], rng, revisits)


def _assemble(
    runs: Runs,
    start: np.ndarray,
    end: np.ndarray,
    last: np.ndarray,
    begins: np.ndarray,
    rng: np.random.Generator,
    revisits: bool,
) -> Batch:
    """Windows of the runs start..end in segments that end at `last`; where `begins`, start opens one."""
    t = int((end - start + 1 + begins).max())
    at = end[:, None] - t + 1 + np.arange(t + 1)  # (b, t + 1): one position ahead
    held = (at >= start[:, None]) & (at <= last[:, None])
    at = np.clip(at, 0, len(runs.item) - 1)
    now, ahead = at[:, :-1], at[:, 1:]
    real, follows = held[:, :-1], held[:, 1:]

    columns = np.where(held, runs.item[at].astype(np.int64) + 1, 0)
    late = rng.random(now.shape) < 0.5  # which face of the run
    ts = np.where(late, runs.last_ts[now], runs.first_ts[now])
    kinds = np.where(late, runs.last_kind[now], runs.first_kind[now])
    gap = np.maximum(runs.first_ts[ahead] - ts, 0) / 1e6
    same = runs.session[ahead] == runs.session[now]
    hesitation = np.where(rng.random(now.shape) < 0.5, rng.random(now.shape), 0.0)
    earlier = columns[:, :, None] == columns[:, None, :]  # (b, column, column)
    t_range = np.arange(t + 1)
    earlier &= t_range[None, None, :] < t_range[None, :, None]
    seen_kinds = np.where(earlier[:, :-1, :-1], kinds[:, None, :], 0).max(-1, initial=0)
    answers = follows & (real | (begins[:, None] & ~real))
    visit = runs.session[at]
    behind = real[:, None, :] & (t_range[None, None, :t] <= t_range[None, :t, None])
    behind &= (visit[:, 1:, None] == visit[:, None, :-1]) & (not revisits)
    again = (earlier & (visit[:, :, None] == visit[:, None, :])).any(-1) & (not revisits)
    following = _next_new(held & ~again)
    next_new = np.minimum(following, t)
    answers &= (following <= t) & (np.take_along_axis(visit, next_new, axis=1) == visit[:, 1:])
    target = np.take_along_axis(columns, next_new, axis=1) - 1
    return Batch(
        items=columns[:, :-1],
        ages=np.where(real, (ts.max(1, keepdims=True) - ts) / 1e6, 0).astype(np.float32),
        kinds=np.where(real, np.maximum(kinds, seen_kinds), 0).astype(np.int64),
        wait=np.where(real, gap * np.where(same, hesitation, 1.0), 0).astype(np.float32),
        context=runs.context[ahead],
        target=np.where(answers, target, -1),
        asked=runs.first_ts[ahead],
        behind=behind,
    )


def _next_new(new: np.ndarray) -> np.ndarray:
    """int64 (b, t): for each position, the next column that is `new` bool (b, t + 1); t + 1 for none."""
    width = new.shape[1]
    where = np.where(new, np.arange(width), width)
    following: np.ndarray = np.minimum.accumulate(where[:, ::-1], axis=1)[:, ::-1][:, 1:]
    return following
