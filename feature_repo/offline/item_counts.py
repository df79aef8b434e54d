"""The closed form of the fold `item_activity`: decayed counts of all items by numpy, event by event.

    count after event n = sum over i <= n of w_i 2^(-(t_n - t_i)/h)
                        = 2^(-(t_n - t_0)/h) * cumsum(w_i 2^((t_i - t_0)/h))_n

All terms are positive, so nothing cancels. 2^((t_i - t_0)/h) overflows float64 after 1,023 half-lives: the
sum is carried over into a new reference t_0 every 900.
"""

from collections.abc import Iterator
from itertools import pairwise

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.features.stored import ITEM_ACTIVITY, MAX_AGE_US
from feature_repo.folds.fold import Fold
from feature_repo.folds.parts import Counts, First
from feature_repo.offline.history import of_fold, schema

SPAN = 900.0  # half-lives from one reference to the next

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def decayed_sums(ts: Ints, weights: Doubles, half_life_us: int) -> Doubles:
    """The count after each event: ts int64 (n,) us ascending, weights float64 (n,) >= 0 -> float64 (n,).

    >>> decayed_sums(np.array([0, 10, 10, 20]), np.array([1.0, 1.0, 0.0, 2.0]), 10)
    array([1.  , 1.5 , 1.5 , 2.75])
    """
    age = (ts - ts[0]) / half_life_us
    if age[-1] <= SPAN:
        return np.cumsum(weights * np.exp2(age)) * np.exp2(-age)
    sums, block = np.empty(len(ts)), age // SPAN
    starts = np.flatnonzero(np.diff(block, prepend=-1.0))
    carried, before = 0.0, 0.0
    for start, end in zip(starts, [*starts[1:], len(ts)], strict=True):
        since = age[start:end] - age[start]
        carried *= np.exp2(before - age[start])
        sums[start:end] = (np.cumsum(weights[start:end] * np.exp2(since)) + carried) * np.exp2(-since)
        carried, before = sums[end - 1], age[end - 1]
    return sums


def has_closed_form(fold: Fold) -> bool:
    """True where the fold's stored parts are counts and earliest instants of the events that these count.

    Any other part makes `item_rows` wrong and the plain fold necessary.
    """
    counts = [part for part in fold.parts if isinstance(part, Counts)]
    rest = [part for part in fold.parts if part.columns and part not in counts]
    return len(counts) == 1 and all(type(part) is First and part.types <= counts[0].types for part in rest)


def item_rows(connection: duckdb.DuckDBPyConnection, chunk: int) -> Iterator[pa.Table]:
    """Offline rows of `item_activity` in tables of some `chunk` rows, sorted by (item_id, event_timestamp).

    `connection` is that of feature_repo.offline.history.raw_events. Equal, row by row, to running the fold.
    """
    where = of_fold(ITEM_ACTIVITY)
    sizes = connection.execute(
        f"SELECT item_id, count(*) FROM events WHERE {where} GROUP BY item_id ORDER BY item_id"
    ).fetchall()
    kinds = sorted(ITEM_ACTIVITY.types)
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    events = connection.execute(
        f"SELECT ts, created, list_position([{listed}], type) - 1 AS kind, coalesce(position, 0) AS place"
        f" FROM events WHERE {where} ORDER BY item_id, ts, event_id"
    ).fetchnumpy()
    ts, created = events["ts"], events["created"]
    sorts, sort = _sorts(kinds, events.pop("kind"), events.pop("place"))
    start, waiting, items, parts = 0, 0, [], []
    for item, size in sizes:
        of_item = slice(start, start + size)
        start += size
        items.append(item)
        parts.append(_item(ts[of_item], created[of_item], sorts, sort[of_item]))
        waiting += len(parts[-1]["created"])
        if waiting >= chunk:
            yield _table(items, parts)
            waiting, items, parts = 0, [], []
    if parts:
        yield _table(items, parts)


Sort = tuple[str, int | None]  # type and position of an event: all that its weight depends on


def _sorts(kinds: list[str], kind: Ints, place: Ints) -> tuple[list[Sort], Ints]:
    """The distinct sorts of events, and int32 (n,) which one each event is."""
    code = kind.astype(np.int64) << 32 | place.astype(np.int64)
    distinct, inverse = np.unique(code, return_inverse=True)
    sorts: list[Sort] = [(kinds[c >> 32], (c & 0xFFFFFFFF) or None) for c in distinct.tolist()]
    return sorts, inverse.astype(np.int32)


def _item(ts: Ints, created: Ints, sorts: list[Sort], sort: Ints) -> dict[str, Ints | Doubles]:
    """One item's rows, one per instant: column name -> (m,). After too long a pause it starts anew."""
    created = np.maximum.accumulate(created)
    starts = np.flatnonzero(np.diff(ts) > MAX_AGE_US) + 1 if MAX_AGE_US else np.empty(0, np.int64)
    bounds = pairwise([0, *starts.tolist(), len(ts)])
    parts = [_unbroken(ts[low:high], created[low:high], sorts, sort[low:high]) for low, high in bounds]
    return parts[0] if len(parts) == 1 else {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}


def _unbroken(ts: Ints, created: Ints, sorts: list[Sort], sort: Ints) -> dict[str, Ints | Doubles]:
    last = np.flatnonzero(np.diff(ts, append=ts[-1] + 1))  # the last event of each instant
    columns: dict[str, Ints | Doubles] = {"created": created[last]}
    for part in ITEM_ACTIVITY.parts:
        if isinstance(part, Counts):
            columns["at"] = ts[last]
            for counter in part.counters:
                weights = np.array([counter.weight(*one) for one in sorts])[sort]
                columns[counter.name] = decayed_sums(ts, weights, counter.half_life_us)[last]
        for column in part.columns if isinstance(part, First) else ():
            hit = np.isin(sort, [i for i, (kind, _) in enumerate(sorts) if kind in part.types])
            columns[column.name] = np.where(np.logical_or.accumulate(hit), ts[hit.argmax()], 0)[last]
    return columns


def _table(items: list[str], parts: list[dict[str, Ints | Doubles]]) -> pa.Table:
    shape = schema(ITEM_ACTIVITY.key, ITEM_ACTIVITY.columns)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    key = np.repeat(np.arange(len(items)), [len(part["created"]) for part in parts])
    arrays = [
        pa.array(items, pa.string()).take(pa.array(key)),
        *(pa.array(joined[name]).cast(shape.field(i).type) for i, name in ((1, "at"), (2, "created"))),
        *(pa.array(joined[c.name]) for c in ITEM_ACTIVITY.columns),
    ]
    return pa.Table.from_arrays(arrays, schema=shape)
