"""The shop as it stands: the champion, its products as Redis has them, their titles, who was here lately."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow.parquet as pq
from redis import Redis

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.online.newborns import NewbornParams
from feature_repo.params import load, root
from feature_repo.ports import redis_url
from serving import pipeline
from serving.live.online_features import OnlineFeatures
from serving.pipeline import Bundle, Served
from serving.release import bundle, state
from serving.release.state import EXPOSURES
from serving.stages.steering import Steering
from serving.types import NO_ROWS, Request

LATEST = 2_000  # exposures that are searched for somebody


@dataclass(frozen=True)
class Showroom:
    """A release in memory beside the service's own, over the same Redis; `titles`: item -> title."""

    bundle: Bundle
    features: OnlineFeatures
    titles: dict[str, str]
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)  # connections live in one event loop

    @property
    def matrix(self) -> ItemMatrix:
        """The products as they are now."""
        return self.features.matrix

    def lists(self, request: Request, now: int, *steerings: Steering) -> list[Served]:
        """The list that the service would give at `now` (us) under each of these."""
        rows = self.runner.run(self._rows(request, now))
        visitor = pipeline.visitor_of(request, now, rows.user, rows.session)
        return [pipeline.recommend(request, self.bundle, visitor, self.matrix, one) for one in steerings]

    async def _rows(self, request: Request, now: int) -> Any:
        if request.user_id is None and request.session_id is None:
            return NO_ROWS
        return await self.features.read(request.user_id, request.session_id, now)


def opened(redis: Redis) -> Showroom:
    """The champion's. Raises RolloutError before the first promotion, BundleError for a damaged release."""
    path = root() / state.present(redis).champion.path
    found = bundle.load(path)
    most = load("newborns", NewbornParams).most
    features = OnlineFeatures(redis_url(), found.models.ids, found.manifest["space"], most)
    features.load_items()
    table = pq.read_table(path / "catalogue.parquet", columns=["item_id", "title"])
    titles = dict(zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True))
    return Showroom(found, features, titles)


def lately(redis: Redis, surface: str) -> Iterator[dict[str, Any]]:
    """What was shown on a surface, the newest first, with `user_id`, `session_id` and `items`."""
    entries: Any = redis.xrevrange(EXPOSURES, count=LATEST)
    for _, fields in entries:
        shown: dict[str, Any] = orjson.loads(fields[b"exposure"])
        if shown["surface"] == surface:
            yield shown
