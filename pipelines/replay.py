"""`endcap replay`: history over HTTP, in its order, against the lists and the 28 values computed offline.

Events after the test cut are posted as they happened; at every query point of the protocol the running
service is asked and its answer is compared, slot by slot and feature by feature, with the offline one. The
service must run with ENDCAP_REPLAY=1 and online features as of the cut (`endcap materialize --fresh`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from tqdm import tqdm

from feature_repo.errors import EndcapError
from feature_repo.events import SCHEMA, TIMESTAMP
from feature_repo.params import load, root, shop
from pipelines.parity import Expected, Parity, show
from pipelines.ports import service_url
from pipelines.queries import make_queries, product_events
from pipelines.visits import visits
from serving import bundle
from serving.pipeline import recommend

REPORT = "data/reports/replay.json"


@dataclass(frozen=True)
class Replay:
    """Section `replay` of params.yaml."""

    queries: int  # query points asked unless --queries says otherwise
    batch: int  # events per POST
    min_equal: float  # share of slots that must equal the offline ones
    tolerance: float  # two values are equal within this, relative and absolute


def main(
    queries: Annotated[int | None, typer.Option(help="How many query points, from the cut on.")] = None,
    url: Annotated[
        str | None, typer.Option(help="The service; default: the one `endcap up` started.")
    ] = None,
) -> None:
    """Post history to the running service, ask at the protocol's query points, compare with offline."""
    params = load("replay", Replay)
    expected = offline_answers(queries or params.queries)
    found = compare(url or service_url(), expected, params)
    path = root() / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(found.report(), option=orjson.OPT_INDENT_2))
    show(found)
    if found.equal_share < params.min_equal:
        raise EndcapError(
            f"replay: {found.equal_share:.4%} of the slots equal the offline ones, {params.min_equal:.1%} "
            f"must; {REPORT} shows the first differences"
        )


def offline_answers(limit: int) -> list[Expected]:
    """The first `limit` query points after the cut, by the champion's bundle from offline features."""
    events = product_events(root() / "data" / "raw")
    points = make_queries(events, shop().test_from, None, None, np.random.default_rng(0))[:limit]
    release = bundle.load(_champion_path())
    answers = []
    for query, request, visitor, matrix in visits(points, release.ids, 12, "offline answers"):
        served = recommend(request, release, visitor, matrix)
        values = {matrix.ids[row]: served.ranked.matrix[i] for i, row in enumerate(served.ranked.rows)}
        items = [slot.item_id for slot in served.slots]
        answers.append(Expected(query, request, items, {item: values[item] for item in items}))
    return answers


def compare(url: str, expected: list[Expected], params: Replay) -> Parity:
    """Post and ask in the order of event time. Raises EndcapError when the service refuses an event."""
    found = Parity()
    history = _events_until(expected[-1].query.now)
    sent = 0
    progress = tqdm(total=len(history), desc="replay", unit=" events", disable=None)
    with httpx.Client(base_url=url, timeout=60) as client:
        for answer in expected:
            until = sent
            while until < len(history) and history[until]["event_ts"] < answer.query.now:
                until += 1
            for start in range(sent, until, params.batch):
                _post(client, history[start : min(start + params.batch, until)])
            progress.update(until - sent)
            sent = until
            found.check(_ask(client, answer), answer, params.tolerance)
    progress.close()
    return found


def _champion_path() -> Any:
    from redis import Redis

    from serving import state
    from serving.params import redis_url

    current = state.read(Redis.from_url(os.environ.get("REDIS_URL", redis_url())))
    if current is None:
        raise EndcapError("replay: no champion is released; run `endcap promote` first")
    return root() / current.champion.path


def _events_until(now: int) -> list[dict[str, Any]]:
    """Events after the cut and before `now` (us), in order (event_ts, event_id), as JSON has them."""
    start = pa.scalar(shop().test_from, TIMESTAMP)
    end = pa.scalar(now, pa.int64()).cast(TIMESTAMP)
    inside = (pc.field("event_ts") > start) & (pc.field("event_ts") < end)
    raw = root() / "data" / "raw"
    parts = [pq.read_table(raw / name, filters=inside) for name in ("events.parquet", "impressions.parquet")]
    table = pa.concat_tables(parts).sort_by([("event_ts", "ascending"), ("event_id", "ascending")])
    table = table.drop_columns(["created_ts"])
    instants = table["event_ts"].cast(pa.int64())
    table = table.set_column(table.column_names.index("event_ts"), "event_ts", instants)
    assert set(table.column_names) < set(SCHEMA.names)
    return [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]


def _post(client: httpx.Client, events: list[dict[str, Any]]) -> None:
    answer = client.post("/v1/events?wait=1", content=orjson.dumps({"events": events}))
    body = answer.json()
    if answer.status_code != 202 or body["rejected"] or not body.get("applied"):
        raise EndcapError(
            f"replay: {len(events)} events posted, answered {answer.status_code} {answer.text[:300]}"
        )


def _ask(client: httpx.Client, expected: Expected) -> dict[str, Any]:
    request = expected.request
    context = {"device": request.context.device, "country": request.context.country}
    body = {
        "surface": request.surface,
        "user_id": request.user_id,
        "session_id": request.session_id,
        "exclude": request.exclude,
        "context": {**context, "channel": request.context.channel},
        "limit": request.limit,
        "debug": True,
        "as_of": request.as_of,
    }
    answer = client.post("/v1/recommend", content=orjson.dumps(body))
    if answer.status_code != 200:
        raise EndcapError(f"replay: asked {body}, answered {answer.status_code} {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found
