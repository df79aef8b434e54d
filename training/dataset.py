"""data/raw as training reads it: the catalogue, and product contacts strictly before a cut.

Nothing here knows the time of day: what a fit may see is decided by `cut` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from feature_repo.errors import DataError
from feature_repo.events import ITEM_SCHEMA, KINDS, PRODUCT_TYPES, SCHEMA
from feature_repo.features.context import encode_context
from feature_repo.offline.duck import connect
from feature_repo.params import Shop, shop
from feature_repo.places import EVENTS, ITEMS, at, existing, fit_dir

if TYPE_CHECKING:
    from training.tracking import Run

Fit = Literal["prior", "final"]


def cut_of(fit: Fit, shop: Shop) -> datetime:
    """The instant before which a fit may look: `prior` feeds the ranker's training, `final` is released."""
    return {"prior": shop.rank_from, "final": shop.test_from}[fit]


@dataclass(frozen=True)
class Catalogue:
    """items.parquet in its own order; row i of every table of every model is `item_ids[i]`."""

    table: pa.Table

    @property
    def item_ids(self) -> list[str]:
        return self.table.column("item_id").to_pylist()

    def __len__(self) -> int:
        return self.table.num_rows


def read_catalogue() -> Catalogue:
    """The whole catalogue, cold items included. Raises DataError when it is missing or empty."""
    path = existing(ITEMS, "ingest", *ITEM_SCHEMA.names)
    table = pq.read_table(path)
    if table.num_rows == 0:
        raise DataError(path, "has no item", rows=0, next_step="run `endcap ingest` on a catalogue")
    return Catalogue(table)


@dataclass(frozen=True)
class Contacts:
    """Product contacts (view, cart, purchase) as parallel arrays of length n, sorted by owner, then time.

    The owner is the user where one is known and consents, else the session. Identity may arrive in
    mid-session: one event with a user names the whole session.

    item     int32  catalogue row
    kind     int8   1 view, 2 cart, 3 purchase
    ts       int64  microseconds since 1970, UTC
    session  int32  0..sessions-1
    owner    int32  0..owners-1, ascending
    context  int64  (n, 3) device, channel and country codes
    """

    item: np.ndarray
    kind: np.ndarray
    ts: np.ndarray
    session: np.ndarray
    owner: np.ndarray
    context: np.ndarray

    def __len__(self) -> int:
        return len(self.item)

    def select(self, rows: np.ndarray) -> Contacts:
        """The contacts at `rows` (a mask or indices), in that order."""
        return Contacts(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def by_session(self) -> Contacts:
        """The same contacts sorted by session, then time."""
        return self.select(np.lexsort((np.arange(len(self)), self.ts, self.session)))


_CONTACTS = f"""
    with contacts as (
        select c.row as item, e.type, epoch_us(e.event_ts) as ts, e.event_id, e.session_id,
               e.device, e.channel, e.country,
               coalesce('u' || min(e.user_id) filter (e.consent) over (partition by e.session_id),
                        's' || e.session_id) as owner_id
        from read_parquet($events) e join catalogue c using (item_id)
        where e.type in {PRODUCT_TYPES} and e.event_ts < $cut
    )
    select item, type, ts, device, channel, country,
           dense_rank() over (order by session_id) - 1 as session,
           dense_rank() over (order by owner_id) - 1 as owner
    from contacts order by owner, ts, event_id
"""


def read_contacts(catalogue: Catalogue, cut: datetime) -> Contacts:
    """Contacts with items of the catalogue at event times strictly before `cut`.

    Raises DataError when there is none: a model fitted on nothing must not be released.
    """
    path = existing(EVENTS, "ingest", *SCHEMA.names)
    with connect(threads=2) as db:
        db.register(
            "catalogue",
            pa.table({"item_id": catalogue.table.column("item_id"), "row": np.arange(len(catalogue))}),
        )
        found = db.sql(_CONTACTS, params={"events": str(path), "cut": cut}).to_arrow_table()
    if found.num_rows == 0:
        problem = f"has no product event before {cut.isoformat()}"
        raise DataError(path, problem, next_step=f"move the cuts of the shop in params.yaml or {path.name}")
    columns = [found.column(name).to_pylist() for name in ("device", "channel", "country")]
    contexts = list(zip(*columns, strict=True))
    codes = {context: encode_context(*context) for context in set(contexts)}
    return Contacts(
        item=found.column("item").to_numpy().astype(np.int32),
        kind=np.array([KINDS[t] for t in found.column("type").to_pylist()], dtype=np.int8),
        ts=found.column("ts").to_numpy().astype(np.int64),
        session=found.column("session").to_numpy().astype(np.int32),
        owner=found.column("owner").to_numpy().astype(np.int32),
        context=np.array([codes[c] for c in contexts], dtype=np.int64),
    )


def first_contacts(contacts: Contacts) -> Contacts:
    """One contact per session and item, at its first place and with its strongest kind; sorted by session."""
    ordered = contacts.by_session()
    n = len(ordered)
    pair = ordered.session.astype(np.int64) * (int(ordered.item.max(initial=0)) + 1) + ordered.item
    _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    strongest = np.zeros(len(first), dtype=ordered.kind.dtype)
    np.maximum.at(strongest, inverse, ordered.kind)
    kind = np.zeros(n, dtype=ordered.kind.dtype)
    kind[first] = strongest
    ordered.kind[:] = kind
    return ordered.select(np.sort(first))


def session_matrix(contacts: Contacts, items: int) -> sparse.csr_matrix:
    """Binary CSR float32 (sessions, items): 1 where the session had any contact with the item."""
    rows, columns = contacts.session.astype(np.int64), contacts.item.astype(np.int64)
    pairs = np.unique(rows * items + columns)
    shape = (int(contacts.session.max(initial=-1)) + 1, items)
    ones = np.ones(len(pairs), dtype=np.float32)
    return sparse.csr_matrix((ones, (pairs // items, pairs % items)), shape=shape)


class Job(NamedTuple):
    """The fit of one model: what it may see, where its files go, and the run that is told of them."""

    catalogue: Catalogue
    contacts: Contacts  # before `cut`
    cut: datetime
    folder: Path  # data/models/<fit>/<model>
    run: Run


@contextmanager
def fitting(
    model: str, fit: Fit, params: Any, *inputs: Path, service: str = "none: raw contacts"
) -> Iterator[Job]:
    """Everything that the jobs of the models share; at the end the files of the folder go to the run.

    `params` is the model's section of params.yaml; `inputs`: files that it reads beside events and items;
    `service`: the Feast service that it reads.
    """
    from training.tracking import tracked  # MLflow takes seconds to import, and who reads data needs none

    cut, catalogue = cut_of(fit, shop()), read_catalogue()
    contacts = read_contacts(catalogue, cut)
    folder = fit_dir(fit) / model
    folder.mkdir(parents=True, exist_ok=True)
    logged = {**asdict(params), "cut": cut.isoformat()}
    with tracked(f"{model} {fit}", logged, (at(EVENTS), at(ITEMS), *inputs), service) as run:
        yield Job(catalogue, contacts, cut, folder, run)
        run.artifact(folder)
