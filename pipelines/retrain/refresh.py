"""`endcap refresh`: the champion with what the shop has learned since, in minutes, between two retrains.

Co-visits, what comes next, EASE, what goes together, attraction, ALS and the bestsellers are fitted again on
all events up to now, those of the running shop included. Towers, ranker, order and settings stay: what the
ranker sees of a table is scaled alike in every fit, and the evaluation of the champion is the refreshed
release's too.

It is tried first. Fitted on what was known `trial_hours` before the newest event, it answers the query
points since then beside the champion, as of their instants. It is released only where it is not credibly
worse, loses at most `max_loss` of NDCG@12, and covers at most `max_narrowing` less than the champion.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import orjson
import pyarrow.parquet as pq
import typer

from feature_repo.clock import HOUR_US, instant
from feature_repo.eventlog.keys import StreamParams
from feature_repo.files import reserved
from feature_repo.online.connection import connect
from feature_repo.params import load, root, shop
from feature_repo.places import BUNDLES, EVENT_LOG, REWRITING, at
from pipelines.local.story import reproduce
from pipelines.protocol.known import Known, answers
from pipelines.protocol.metrics import bootstrap_interval, coverage, ndcg_at
from pipelines.protocol.queries import QueryParams, make_queries, product_events
from pipelines.release.aliases import act_of, aliased, read_manifest
from pipelines.release.assurance import ReleaseParams, confirm, prune
from pipelines.release.bundle import popular
from pipelines.release.promote import promote
from pipelines.release.registry import Registry
from pipelines.retrain.land import land
from serving.pipeline import Bundle, recommend
from serving.release import bundle
from serving.release import state as rollout
from training.collaborative.als import AlsParams, fold_in_table
from training.collaborative.item_item import ItemItemParams, write_tables
from training.dataset import Catalogue, read_contacts

K = 12


@dataclass(frozen=True)
class RefreshParams:
    """Section `refresh` of params.yaml."""

    trial_hours: float  # before the newest event: from there on both are asked
    queries: int  # of the trial, at most
    min_queries: int  # fewer prove nothing: nothing is released
    max_loss: float  # of the champion's NDCG@12, share
    max_narrowing: float  # of the champion's coverage, share


class Trial(NamedTuple):
    """Champion and refreshed on the same query points; `interval` of the difference of NDCG@12 (95 %)."""

    queries: int
    since: datetime
    ndcg: tuple[float, float]
    interval: tuple[float, float]
    coverage: tuple[float, float]

    def trouble(self, params: RefreshParams) -> str:
        """Why the refreshed must not serve; empty where it may."""
        stale, fresh = self.ndcg
        if self.queries < params.min_queries:
            return f"{self.queries} query points are too few, refresh.min_queries is {params.min_queries}"
        if self.interval[1] < 0 or fresh < stale * (1 - params.max_loss):
            return f"NDCG@12 {fresh:.4f} against the champion's {stale:.4f}: {self.told()}"
        if self.coverage[1] < self.coverage[0] * (1 - params.max_narrowing):
            return f"coverage {self.coverage[1]:.3f} against the champion's {self.coverage[0]:.3f}"
        return ""

    def told(self) -> str:
        """The difference in words.

        >>> since = datetime(2026, 3, 1)
        >>> Trial(900, since, (0.2, 0.22), (0.01, 0.03), (0.5, 0.5)).told()
        '+10.0 % [+5.0, +15.0] on 900 query points'
        """
        stale, fresh = self.ndcg
        if not stale:
            return f"{fresh:.4f} on {self.queries} query points"
        share = [100 * (end / stale) for end in (fresh - stale, *self.interval)]
        return f"{share[0]:+.1f} % [{share[1]:+.1f}, {share[2]:+.1f}] on {self.queries} query points"


def main(
    dry_run: Annotated[bool, typer.Option("--try", help="Try it, release nothing.")] = False,
    why: Annotated[str, typer.Option(help="For the audit log.")] = "endcap refresh",
) -> int:
    """The champion's tables, fitted again on all events up to now; tried first. 1 where it must not serve."""
    params, redis = load("refresh", RefreshParams), connect()
    with reserved(shop().run_dir() / REWRITING, "`endcap refresh`"):
        state = rollout.present(redis)
        rollout.refuse_canary(state, "refresh the champion")
        champion = root() / state.champion.path
        landed = land(redis, at(EVENT_LOG), load("stream", StreamParams))
        print(f"{landed.rows:,} live events landed; the features follow", flush=True)
        reproduce("features", logs() / "refresh-dvc.log")
        with tempfile.TemporaryDirectory(
            dir=at(BUNDLES), prefix=".refresh-", suffix=f".{os.getpid()}"
        ) as name:
            trial = tried(champion, params, Path(name))
            print(f"since {trial.since:%Y-%m-%d %H:%M}, NDCG@12 against the champion: {trial.told()}")
            if trouble := trial.trouble(params):
                print(f"not released: {trouble}")
                return 1
            if dry_run:
                return 0
            until = instant(int(product_events()["event_ts"].max()) + 1)
            made = refreshed(champion, until, Path(name), trial)
            done = promote(made, redis, Registry(), act_of(why), direct=True)
        prune(redis, aliased(), load("release", ReleaseParams).bundles_kept)
    print(f"{done.release.digest} is champion, fitted up to {until:%Y-%m-%d %H:%M}")
    print(confirm(redis, rollout.present(redis), load("release", ReleaseParams)))
    return 0


def logs() -> Path:
    """Of the shop, relative to root()."""
    return (shop().run_dir() / "logs").relative_to(root())


def tried(champion: Path, params: RefreshParams, folder: Path) -> Trial:
    """Fit at `trial_hours` before the newest event and ask both from there on. Writes below `folder`."""
    events = product_events()
    since = instant(int(events["event_ts"].max() - params.trial_hours * HOUR_US))
    stale, fresh = bundle.load(champion), bundle.load(refreshed(champion, since, folder))
    asked = load("queries", QueryParams)
    rng = np.random.default_rng(asked.seed)
    queries = make_queries(events, since, None, params.queries, rng)
    ids = stale.models.ids

    def answer(known: Known) -> tuple[list[str], list[str]]:
        return _listed(stale, known), _listed(fresh, known)

    found = list(answers(queries, ids, K, "trial", answer, asked.processes))
    if not found:
        return Trial(0, since, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    wanted = np.array([len(query.relevant) for query in queries])
    lists = [[one[side] for one in found] for side in (0, 1)]
    ndcg = [ndcg_at(_hits(one, [query.relevant for query in queries]), wanted, K) for one in lists]
    visits = np.array([query.session_id for query in queries])
    row = {item: at_row for at_row, item in enumerate(ids)}
    covered = [coverage([[row[item] for item in one] for one in side], len(ids)) for side in lists]
    interval = bootstrap_interval(ndcg[1] - ndcg[0], rng, clusters=visits)
    means = float(ndcg[0].mean()), float(ndcg[1].mean())
    return Trial(len(queries), since, means, interval, (covered[0], covered[1]))


def refreshed(champion: Path, cut: datetime, folder: Path, trial: Trial | None = None) -> Path:
    """A bundle of the champion's files with tables fitted before `cut`, written below `folder`."""
    manifest = read_manifest(champion)
    draft = Path(tempfile.mkdtemp(dir=folder))
    for name in (*bundle.files_of(manifest["files"]), *bundle.BESIDE):
        if (champion / name).exists():
            shutil.copyfile(champion / name, draft / name)
    catalogue = Catalogue(pq.read_table(champion / "catalogue.parquet"))
    contacts = read_contacts(catalogue, cut)
    write_tables(catalogue, contacts, cut, load("item_item", ItemItemParams), draft)
    table, _ = fold_in_table(contacts, len(catalogue), cut, load("als", AlsParams))
    np.save(draft / "als_items.npy", table)
    rail = popular(product_events(), cut)
    (draft / "rails.json").write_bytes(orjson.dumps({"popular": rail}))
    told = {name: value for name, value in manifest.items() if name not in ("files", "digest", "space")}
    told["data_span"] = {**manifest["data_span"], "until": cut.isoformat()}
    of = manifest.get("refreshed", {}).get("of", manifest["digest"])
    told["refreshed"] = {"of": of, "from": manifest["digest"], "until": cut.isoformat()}
    if trial:
        told["refreshed"] |= {"trial": {**trial._asdict(), "since": trial.since.isoformat()}}
    return bundle.write(draft, told, folder)


def _listed(release: Bundle, known: Known) -> list[str]:
    return [slot.item_id for slot in recommend(known.request, release, known.visitor, known.matrix).slots]


def _hits(lists: Sequence[Sequence[str]], relevant: Sequence[frozenset[str]]) -> np.ndarray:
    """bool (q, K): whether the place holds what was wanted."""
    hits = np.zeros((len(lists), K), np.bool_)
    for at_query, (shown, wanted) in enumerate(zip(lists, relevant, strict=True)):
        hits[at_query, : len(shown)] = [item in wanted for item in shown[:K]]
    return hits
