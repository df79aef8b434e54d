"""What retrains leave behind and nobody needs any more, store by store.

    bundles   neither serve, served before, wait, nor are among the newest `release.bundles_kept`
    runs      MLflow's, of evaluations that neither a kept bundle nor the newest `runs_kept` came from
    cache     DVC's objects that neither dvc.lock nor that of a kept bundle names
    landed    events that arrived `landed_days` before the newest
    items     changes of items of before then, but the newest of each field

What Redis holds is bounded by counts and lifetimes of its own; reports are written over; logs and what is
kept of persons go by `endcap retain`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from redis import Redis

from feature_repo.clock import DAY_US, HOUR_MS, micros
from feature_repo.files import alone, write_parquet
from feature_repo.offline import event_log, item_log
from feature_repo.params import load, root, shop
from feature_repo.places import EVENT_LOG, ITEM_LOG, at
from pipelines.release.aliases import aliased
from pipelines.release.assurance import ReleaseParams, old
from pipelines.release.assurance import prune as prune_bundles
from pipelines.retrain import dvc_cache, mlflow_store
from pipelines.retrain.dvc_cache import Leftover, size
from pipelines.retrain.land import LOCK
from pipelines.stream.notes import SMALL
from serving.release import bundle
from serving.release import state as rollout
from serving.release.state import Release


@dataclass(frozen=True)
class PruneParams:
    """Section `prune` of params.yaml."""

    runs_kept: int
    landed_days: int


def leftovers(redis: Redis, remove: bool) -> Iterator[Leftover]:
    """What goes; with `remove` it is gone when it is told. For whoever holds the retrain's lock.

    Raises RegistryError where MLflow's store cannot be read: what its aliases name is not known then, and
    nothing was removed.
    """
    params, kept = load("prune", PruneParams), load("release", ReleaseParams).bundles_kept
    held = aliased()
    going = list(old(redis, held, kept))
    sizes = {release.digest: size(root() / release.path) for release in going}
    gone = prune_bundles(redis, held, kept) if remove else list(sizes)
    yield from (Leftover("bundles", digest, sizes.get(digest, 0)) for digest in gone)
    digests = {release.digest for release in [*_serving(redis), *held, *bundle.installed()]} - set(gone)
    origins = {digest: _origin(digest) for digest in digests}
    yield from mlflow_store.old(digests | set(origins.values()), params.runs_kept, remove)
    yield from dvc_cache.unnamed(digests | set(origins.values()), remove)
    yield from landed(at(EVENT_LOG), params.landed_days, remove)
    yield from said(at(ITEM_LOG), params.landed_days, remove)


def landed(folder: Path, days: int, remove: bool) -> Iterator[Leftover]:
    """Files of `endcap land` whose last event arrived so long before the newest one of all."""
    with alone(shop().run_dir() / LOCK):
        files = event_log.files(folder)
        for file in files[:-1]:
            if event_log.span(file)[1] < event_log.span(files[-1])[1] - days * 24 * HOUR_MS:
                yield Leftover("landed", file.name, size(file))
                if remove:
                    file.unlink()


def said(folder: Path, days: int, remove: bool) -> Iterator[Leftover]:
    """Words of items that were said so long before the newest, and said anew since; in full files."""
    full = [file for file in sorted(folder.glob("*.parquet")) if pq.read_metadata(file).num_rows >= SMALL]
    if not full:
        return
    newest = max(pc.max(pq.read_table(file, columns=["created_ts"])["created_ts"]).as_py() for file in full)
    for file, left, gone in item_log.outdated(folder, full, micros(newest) - days * DAY_US):
        yield Leftover("items", file.name, size(file) * gone // (gone + len(left)))
        if remove:
            write_parquet(file, item_log.SCHEMA, [left])


def lines(found: Iterable[Leftover], each: bool, most: int = 20) -> Iterator[str]:
    """A line per store, and with `each` the first `most` things of it.

    >>> list(lines([Leftover("runs", "a1", 2_000_000), Leftover("runs", "b2", 500_000)], each=True, most=1))
    ['runs: 2, 2.5 MB', '  a1 2.0 MB', '  and 1 more']
    """
    by_store: dict[str, list[Leftover]] = {}
    for one in found:
        by_store.setdefault(one.store, []).append(one)
    for store, ones in by_store.items():
        yield f"{store}: {len(ones):,}, {sum(one.bytes for one in ones) / 1e6:.1f} MB"
        if each:
            largest = sorted(ones, key=lambda one: -one.bytes)
            yield from (f"  {one.name} {one.bytes / 1e6:.1f} MB" for one in islice(largest, most))
            yield from [f"  and {len(ones) - most:,} more"] if len(ones) > most else []


def _serving(redis: Redis) -> list[Release]:
    state = rollout.read(redis)
    return [one for one in (state.champion, state.challenger, state.previous) if one] if state else []


def _origin(digest: str) -> str:
    """The release that was evaluated: of a refreshed one the retrained one that it came from."""
    found = next((one for one in bundle.installed() if one.digest == digest), None)
    return str(((found and found.manifest()) or {}).get("refreshed", {}).get("of", digest))
