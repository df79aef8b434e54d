"""`endcap replay`: history over HTTP, in its order, against the lists and the 28 values computed offline.

Events from the test cut on are posted as they happened, and what was said of items live; at every query point
of the protocol the service is asked and its answer is compared, slot by slot and feature by feature, with the
offline one.

    endcap replay               the running service, as of the cut and with ENDCAP_REPLAY=1; the champion.
                                Refused where its features hold events from the cut on
    endcap replay --standalone  processes of its own (pipelines/parity/standalone.py); data/bundles/candidate

Writes data/reports/replay.json and .png, standalone parity.json and .png (the DVC stage `replay`).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from redis import Redis

from feature_repo.clock import instant, micros
from feature_repo.errors import DataError, EndcapError, ParamsError
from feature_repo.events import SCHEMA, TIMESTAMP
from feature_repo.features.words import COLUMNS, DELETED
from feature_repo.files import chunks, write_json
from feature_repo.offline import item_log
from feature_repo.online import changes
from feature_repo.online.connection import connect
from feature_repo.online.newborns import NewbornParams
from feature_repo.params import Shop, load, root, shop
from feature_repo.places import CANDIDATE, EVENTS, IMPRESSIONS, ITEM_LOG, PARITY, REPLAY, at, existing
from feature_repo.ports import SECRET, authorization, service_url
from feature_repo.terminal import progress
from pipelines.newborn.embed import open_texts
from pipelines.newborn.newcomers import Newcomers
from pipelines.parity.agreement import Expected, Parity
from pipelines.parity.births import Births
from pipelines.parity.standalone import standalone
from pipelines.parity.summary import draw, show
from pipelines.protocol.known import known_at
from pipelines.protocol.queries import make_queries, product_events
from serving.beside.trial import INTERLEAVE
from serving.explore.budget import UNSEEN_KEY
from serving.flags import flag_versions
from serving.live.exposures import stored
from serving.pipeline import recommend
from serving.release import bundle, state
from serving.rules import published
from training.two_tower.text import TextParams

CHANGES = 40  # of items at once; each may hold kilobytes of text
ATTEMPTS = 5  # at an answer that came without features because the machine was busy


@dataclass(frozen=True)
class Replay:
    """Section `replay` of params.yaml."""

    queries: int  # query points asked unless --queries says otherwise
    batch: int  # events per POST
    min_equal: float  # share of slots, candidates, values and each column's that must equal the offline ones
    min_answered: float  # share of the questions that the champion itself must have answered
    tolerance: float  # two values are equal within this, see pipelines.parity.agreement.Parity


def main(
    queries: Annotated[int | None, typer.Option(help="How many query points, from the cut on.")] = None,
    url: Annotated[
        str | None, typer.Option(help="The service; default: the one `endcap up` started.")
    ] = None,
    alone: Annotated[
        bool, typer.Option("--standalone", help="Start, compare with and stop processes of its own.")
    ] = False,
) -> None:
    """Post history over HTTP, ask at the protocol's query points, compare lists and values with offline."""
    if url and alone:
        raise ParamsError("--url: not allowed with --standalone, which starts a service; name one of the two")
    params = load("replay", Replay)
    path = at(CANDIDATE)
    if not alone:
        with connect() as redis:
            check_as_of_cut(redis, shop())
            check_unsteered(redis)
            path = root() / state.present(redis).champion.path
    report_file = PARITY if alone else REPLAY
    expected = offline_answers(path, queries or params.queries)
    if not expected:
        raise DataError(EVENTS, "has no query point after the cut", next_step="move the cut")
    history = events_until(expected[-1].query.now), changes_until(expected[-1].query.now)
    with standalone() if alone else nullcontext(url or service_url()) as there, connect() as redis:
        texts = load("text", TextParams).batch
        newcomers = Newcomers(redis, load("newborns", NewbornParams), texts, open_texts)
        found = compare(there, *history, expected, params, newcomers.look)
    ids = set(bundle.load(path).models.ids)
    born = sorted({item for one in expected for item in one.candidates} - ids)
    told = {"bundle": bundle.verify(path)["digest"], "item_changes": len(history[1]), "born": born}
    report = told | found.report()
    failures = found.failures(params.min_equal, params.min_answered)
    report["passed"] = not failures
    write_json(at(report_file), report)
    draw(report).savefig(at(report_file).with_suffix(".png"), dpi=110)
    show(report)
    if failures:
        where = f"the culprits stand above and in {report_file}"
        raise EndcapError(f"replay: {'; '.join(failures)}. Next: {where}")


def offline_answers(path: Path, limit: int) -> list[Expected]:
    """The first `limit` query points after the cut, by the bundle at `path` from offline features."""
    events = product_events()
    points = make_queries(events, shop().test_from, None, None, np.random.default_rng(0))[:limit]
    release = bundle.load(path)
    answers = []
    births = Births.of(path, points[0].now - 1) if points else None
    for query, request, visitor, matrix in known_at(points, release.models.ids, 12):
        matrix = births.joined(matrix, query.now) if births else matrix
        served = recommend(request, release, visitor, matrix)
        items = [slot.item_id for slot in served.slots]
        candidates = [matrix.ids[row] for row in served.ranked.rows]
        rows = stored(visitor, matrix, served.ranked.rows)
        answers.append(Expected(query, request, items, candidates, served.ranked.matrix, rows))
    return answers


def compare(
    url: str,
    history: list[dict[str, Any]],
    said: list[dict[str, Any]],
    expected: list[Expected],
    params: Replay,
    embed: Callable[[], object],
) -> Parity:
    """Post events and changes of items, and ask, in the order of event time; `embed` gives new items vectors.

    Raises EndcapError when the service refuses one.
    """
    found = Parity(params.tolerance)
    sent = told = 0
    bar = progress(total=len(history), desc="replay", unit=" events")
    with httpx.Client(base_url=url, timeout=60, headers=authorization(SECRET)) as client:
        for answer in expected:
            until = bisect_left(history, answer.query.now, lo=sent, key=lambda event: event["event_ts"])
            for events in chunks(history[sent:until], params.batch):
                _post(client, "events", events)
            bar.update(until - sent)
            sent = until
            until = bisect_left(said, answer.query.now, lo=told, key=lambda change: change["event_ts"])
            for items in chunks(said[told:until], CHANGES):
                _post(client, "items", items)
                embed()
            told = until
            answered, again = _ask(client, answer)
            found.asked_again += again
            found.check(answered, answer)
    bar.close()
    return found


def check_as_of_cut(redis: Redis, active: Shop) -> None:
    """Raises EndcapError where the features hold an event at or after the cut: history would count twice."""
    newest = changes.applied_ts(redis)
    if newest >= micros(active.test_from):
        cut = active.test_from.isoformat()
        raise EndcapError(
            f"replay: the features hold events up to {instant(newest).isoformat()}; allowed: before the cut, "
            f"{cut}. Next: `endcap replay --standalone`, which starts a shop of its own, or take this "
            f"one back: `endcap down stream`, `endcap materialize --fresh --forget-log --as-of {cut}`, "
            "`endcap up`"
        )


def check_unsteered(redis: Redis) -> None:
    """Raises EndcapError where lists may be other than the models make them, with which they are compared."""
    rules, flags = published.read(redis), flag_versions.read(redis)
    found = [f"{len(made)} rules hold"] if (made := published.documents(rules)[0].rules) else []
    found += [f"experiment {flag.key} runs" for flag in flags.flags().flags if flag.running]
    found += ["products are on offer to be explored"] * bool(redis.exists(UNSEEN_KEY))
    found += ["two releases are interleaved"] * bool(redis.exists(INTERLEAVE))
    if found:
        raise EndcapError(
            f"replay: {', '.join(found)}; allowed: lists as the models alone make them. "
            "Next: `endcap replay --standalone`, which starts a shop of its own"
        )


def events_until(now: int) -> list[dict[str, Any]]:
    """Events from the cut on and before `now` (us), in order (event_ts, event_id), as JSON has them."""
    start = pa.scalar(shop().test_from, TIMESTAMP)
    end = pa.scalar(now, pa.int64()).cast(TIMESTAMP)
    inside = (pc.field("event_ts") >= start) & (pc.field("event_ts") < end)
    parts = [pq.read_table(existing(place, "ingest"), filters=inside) for place in (EVENTS, IMPRESSIONS)]
    table = pa.concat_tables(parts).sort_by([("event_ts", "ascending"), ("event_id", "ascending")])
    table = table.drop_columns(["created_ts"])
    instants = table["event_ts"].cast(pa.int64())
    table = table.set_column(table.column_names.index("event_ts"), "event_ts", instants)
    assert set(table.column_names) < set(SCHEMA.names)
    return [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]


def changes_until(now: int) -> list[dict[str, Any]]:
    """What was said of items from the cut on and before `now` (us), by the offline log, as JSON has it."""
    start = micros(shop().test_from)
    found = [
        {"item_id": item, "event_ts": one.ts}
        | ({DELETED: True} if one.fields[DELETED] else {DELETED: False, **_kept(one.fields)})
        for item, told in item_log.read(at(ITEM_LOG)).items()
        for one in told
        if start <= one.ts < now
    ]
    return sorted(found, key=lambda change: change["event_ts"])


def _kept(said: Mapping[str, Any]) -> dict[str, Any]:
    """What features are made of: descriptions would make bodies too large."""
    return {name: value for name, value in said.items() if name in COLUMNS}


def _post(client: httpx.Client, route: str, events: list[dict[str, Any]]) -> None:
    answer = client.post(f"/v1/{route}?wait=1", content=orjson.dumps({route: events}))
    body = answer.json()
    if answer.status_code != 202 or body["rejected"] or not body.get("applied"):
        raise EndcapError(
            f"replay: {len(events)} {route} posted, answered {answer.status_code} {answer.text[:300]}"
        )


def _ask(client: httpx.Client, expected: Expected) -> tuple[dict[str, Any], int]:
    """The answer, and how often it had to be asked for again because it came without features."""
    request = expected.request
    body = {name: getattr(request, name) for name in ("surface", "user_id", "session_id", "exclude")}
    context = {name: getattr(request.context, name) for name in ("device", "country", "channel")}
    body |= {"context": context, "limit": request.limit, "debug": True, "as_of": request.as_of}
    again = 0
    while True:
        answer = client.post("/v1/recommend", content=orjson.dumps(body))
        if answer.status_code != 200:
            raise EndcapError(f"replay: asked {body}, answered {answer.status_code} {answer.text[:300]}")
        found: dict[str, Any] = answer.json()
        if found["degraded"] is None or again == ATTEMPTS - 1:
            return found, again
        again += 1
