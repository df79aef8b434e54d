"""The log of what was shown, written behind the answer's back.

    endcap:exposures   every answer: `exposure`, JSON
    endcap:served      a sample of the live answers: `meta`, JSON {request_id, ts, arm, bundle, surface,
                       user_id, session_id, schema, items} and what rules are judged by (`sample`), and
                       `features`, the model inputs of the candidates `items`, little-endian float32 (k, 28):
                       what the ranker is trained on are candidates, and the winners alone would look drifted
                       on every day

The queue is bounded: when Redis is away for long, the oldest wait and the newest are dropped and counted. An
answer never waits for the log. What an entry holds stands below.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.assemble.visitor import Visitor
from feature_repo.errors import DataError
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.stored import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from serving import prometheus
from serving.beside.interleaver import Mixture
from serving.beside.tryout import PAIRS
from serving.beside.understudy import SHADOWED
from serving.flags.assignment import UNTREATED, Treatment
from serving.params import Serving
from serving.pipeline import Served
from serving.release.state import EXPOSURES
from serving.stages.diversify import TAIL
from serving.types import Answer, Context, Floats, Request, Rows

SERVED = "endcap:served"
META = ("request_id", "ts", "arm", "bundle", "surface", "user_id", "session_id", "schema", "items")
BATCH = 256
PAUSE_S = 0.02  # gathers the answers of this long into one round trip
RETRY_S = 0.5

log = logging.getLogger(__name__)


class ExposureLog:
    """A bounded queue and the task that writes it to Redis."""

    def __init__(self, redis: Redis, params: Serving) -> None:
        self._redis, self._queued = redis, params.exposures_queued
        self._kept = {
            EXPOSURES: params.exposures_kept,
            SERVED: params.served_kept,
            PAIRS: params.rules_shadow_kept,
            SHADOWED: params.shadow_kept,
        }
        self._waiting: deque[tuple[str, dict[Any, Any]]] = deque()

    def add(self, exposure: dict[str, Any]) -> None:
        """Take note of an answer; never blocks and never raises."""
        self._queue(EXPOSURES, {"exposure": orjson.dumps(exposure)})

    def add_sample(self, meta: dict[str, Any], features: Floats) -> None:
        """Take note of the inputs (k, 28) behind an answer; never blocks and never raises."""
        self._queue(SERVED, encode(meta, features))

    def add_pair(self, pair: Mapping[str, Any], stream: str = PAIRS) -> None:
        """Take note of a list by what is only tried out (serving/beside); never blocks and never raises."""
        self._queue(stream, {"pair": orjson.dumps(pair)})

    def _queue(self, stream: str, fields: dict[Any, Any]) -> None:
        if len(self._waiting) >= self._queued:
            prometheus.LOGGED.labels(stream, "dropped").inc()
        else:
            self._waiting.append((stream, fields))

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self, beat: Callable[[], None]) -> None:
        """Write until cancelled; `beat` is called whenever nothing waits any more."""
        while True:
            try:
                written = await self.flush()
            except Exception:  # what waits is kept, and somebody must see to it that it is written
                log.exception("exposures: %d wait", len(self._waiting))
                written = False
            if written:
                beat()
            await asyncio.sleep(PAUSE_S if written else RETRY_S)

    async def flush(self) -> bool:
        """Write what waits; False if Redis refused, in which case it still waits."""
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
            try:
                pipe = self._redis.pipeline(transaction=False)
                for stream, fields in batch:
                    pipe.xadd(stream, fields, maxlen=self._kept[stream], approximate=True)
                await pipe.execute()
            except (RedisError, OSError) as error:
                log.warning("exposures: %d wait, Redis: %s", len(self._waiting), error)
                return False
            for stream, _ in batch:
                self._waiting.popleft()
                prometheus.LOGGED.labels(stream, "written").inc()
        return True


def encode(meta: Mapping[str, Any], features: Floats) -> dict[Any, Any]:
    """Fields of an entry of `endcap:served`: `meta` as `sample` makes it, and the inputs (k, 28)."""
    return {"meta": orjson.dumps(meta), "features": features.astype("<f4").tobytes()}


def decode(entries: Iterable[Any], others: Counter[str]) -> Iterator[tuple[dict[str, Any], Floats]]:
    """(meta, features) of the entries (number, fields) of our schema; the rest is counted in `others`.

    Raises DataError, with the number, for an entry of ours that is not what `encode` writes.
    """
    for number, fields in entries:
        try:
            meta: dict[str, Any] = orjson.loads(fields[b"meta"])
            if (schema := meta.get("schema", "none")) != schema_hash():
                others[schema] += 1
                continue
            raw, items = fields[b"features"], meta.get("items", [])
            if len(raw) != 4 * len(COLUMNS) * len(items):
                raise ValueError(f"{len(raw)} bytes for {len(items)} candidates of {len(COLUMNS)} float32")
            if missing := [name for name in META if name not in meta]:
                raise ValueError(f"no {missing[0]}")
        except (ValueError, KeyError, AttributeError) as error:  # ValueError: also what is no JSON
            told = number.decode()
            step = f"another version wrote it: delete it with XDEL {SERVED} {told}"
            raise DataError(SERVED, f"entry {told} has {error}", next_step=step) from None
        yield meta, np.frombuffer(raw, "<f4").reshape(-1, len(COLUMNS))


def exposure(
    request: Request,
    answer: Answer,
    ts: int,
    version: int | None,
    served: Served | None,
    rules: int = 0,
    treatment: Treatment = UNTREATED,
    mixture: Mixture | None = None,
) -> dict[str, Any]:
    """What was shown to whom by which release: the denominator of every rate. `ts` in us.

    `version` is that of the rollout state which assigned the arm: steps are told apart by it, not by time.
    `propensity`: the chance that the last slot holds what it holds; `tail`: it is the long tail's.
    `explored`: whether it went to a product that nobody was shown; only where it could have.
    `served_from`: the rung that made it, `degraded` why it is not live; of a list that too much traffic made
    cheap `version` is None, for it is no arm's doing. `rules`: the version of the shop's rules; `by_rule`:
    per slot the id of its rule, where any slot has one. `variants`: flag -> variant, with the version of the
    experiments, where the list is part of any. `rival`, `teams`: of a list that two releases made, the
    challenger's digest and a letter per slot (serving.beside.draft).
    """
    propensity, explored = (served.propensity, served.explored) if served else (1.0, None)
    shown = {"unit": request.user_id or request.session_id, "items": [slot.item_id for slot in answer.items]}
    drawn = {"tail": any(slot.source == TAIL for slot in answer.items[-1:]), "propensity": propensity}
    drawn |= {} if explored is None else {"explored": explored}
    by_rule = [slot.rule for slot in answer.items]
    ruled = {"rules": rules} | ({"by_rule": by_rule} if any(by_rule) else {})
    made = {"version": version, "served_from": answer.served_from}
    made |= {"degraded": answer.degraded} if answer.degraded else {}
    part_of = {"flags": treatment.version, "variants": treatment.variants} if treatment.evaluations else {}
    mixed = mixture.told() if mixture else {}
    return _who(request, answer, ts) | shown | made | drawn | ruled | part_of | mixed


def sample(
    request: Request, answer: Answer, ts: int, served: Served, matrix: ItemMatrix, rules: int = 0
) -> dict[str, Any]:
    """Who was asked for when (us), and the candidates in the order of their model inputs.

    `schema` says what these inputs mean: feature_repo.assemble.schema.schema_hash. `judged`: what rules are
    tried on afterwards: the context, the scores along `items`, what was shown and barred. `pinned` are those
    that a rule showed: whatever became of them says nothing of the ranker.
    """
    items = [matrix.ids[row] for row in served.ranked.rows]
    context = {name: value for name in Context.__slots__ if (value := getattr(request.context, name))}
    judged = {
        "rules": rules,
        "context": context,
        "limit": request.limit,
        "scores": served.ranked.score.tolist(),
        "sources": served.ranked.source,
        "shown": [slot.item_id for slot in answer.items],
        "barred": list(served.eligible.removed),
    }
    pinned = [matrix.ids[pin.row] for pin in served.pins]
    told = {"schema": schema_hash(), "items": items, "pinned": pinned, "judged": judged}
    return _who(request, answer, ts) | told


def unpinned(meta: Mapping[str, Any], features: Floats) -> tuple[list[str], Floats]:
    """Candidates and inputs without those that a rule pinned: a click on them teaches the ranker nothing."""
    items, pinned = meta["items"], set(meta.get("pinned", ()))
    kept = [at for at, item in enumerate(items) if item not in pinned]
    return [items[at] for at in kept], features[kept]


def _who(request: Request, answer: Answer, ts: int) -> dict[str, Any]:
    return {
        "request_id": answer.request_id,
        "ts": ts,
        "arm": answer.arm,
        "bundle": answer.bundle,
        "surface": answer.surface,
        "user_id": request.user_id,
        "session_id": request.session_id,
    }


def explanation(served: Served, visitor: Visitor, matrix: ItemMatrix, replaying: bool) -> dict[str, Any]:
    """`debug`: the instant of the features, the 28 values of every item shown, who was left out and why.

    In a replay `features` holds every candidate, best first, and `stored` the rows that they were made of.
    """
    ranked = served.ranked
    place = {matrix.ids[row]: at for at, row in enumerate(ranked.rows.tolist())}
    shown = [slot.item_id for slot in served.slots if slot.item_id in place]
    told = place if replaying else {item: place[item] for item in shown}
    found = {
        "now": visitor.now,
        "columns": COLUMNS,
        "features": {item: ranked.matrix[at].tolist() for item, at in told.items()},
        "candidates": len(ranked.rows),
        "removed": served.eligible.removed,
        "pinned": [matrix.ids[pin.row] for pin in served.pins],
    }
    return found | {"stored": stored(visitor, matrix, ranked.rows)} if replaying else found


def stored(visitor: Visitor, matrix: ItemMatrix, rows: Rows) -> dict[str, dict[str, Any]]:
    """View -> column -> what was read: of shopper and visit a value, of the items a list along `rows`.

    Category and brand of the catalogue are codes.
    """
    names = ("price", "margin", "stock", "available_from", "brand")
    catalogue = {name: getattr(matrix, name) for name in names} | {"category_path": matrix.category}
    return {
        USER_HISTORY.name: dict(visitor.user),
        SESSION_CONTEXT.name: dict(visitor.session),
        ITEM_ACTIVITY.name: {name: column[rows].tolist() for name, column in matrix.activity.items()},
        ITEM_CATALOGUE.name: {name: column[rows].tolist() for name, column in catalogue.items()},
    }
