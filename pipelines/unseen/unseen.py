"""`endcap unseen`: products without an impression for days although they could be sold, each with its cause.

data/reports/unseen.json   what is told, the sums of earlier runs, and every such product
data/reports/unseen.png    impressions by day, and causes
data/reports/unseen.html   all of it, to be read

Causes come from the candidates of logged answers (`endcap:served`). Where none are logged the release that
serves answers a sample of the logged questions once more, as far as the log tells them: without the page's
products and cart. `now` is the newest logged list where it is not given: no clock is asked.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Annotated, Any

import orjson
import pyarrow.parquet as pq
import typer

from feature_repo.clock import HOUR_US, instant, micros
from feature_repo.errors import DataError, ParamsError
from feature_repo.files import write_json
from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.places import ITEMS, UNSEEN, UNSEEN_PAGE, UNSEEN_PICTURE, at, existing
from feature_repo.terminal import console, table
from serving.explore import budget
from serving.explore.budget import OnOffer
from serving.explore.offer import Explore

RUN = ("now", "products", "unseen", "could_be_sold", "causes", "source")  # kept of an earlier run


@dataclass(frozen=True)
class UnseenParams:
    """Section `unseen` of params.yaml."""

    hours: float  # without an impression, of a product that was on sale all that time
    every: float  # hours between two runs: what would be unseen by the next is on offer to be explored
    answers: int  # logged, whose candidates are searched for them
    asked: int  # logged questions that the release answers again, where no candidates were logged
    days: int  # of impressions that are looked at
    runs: int  # earlier reports whose sums are kept
    tail: float  # of the products, the least shown of the week before, that are the long tail
    named: int  # products in the terminal's table


def main(
    now: Annotated[str | None, typer.Option(help="Instant with a zone; default: the newest list.")] = None,
    hours: Annotated[float | None, typer.Option(min=1, help="Default: unseen.hours of params.yaml.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Products that nobody was shown, each with its cause; what is shown instead; what exploring costs."""
    from monitoring.fitting import showroom  # Feast takes seconds
    from pipelines.unseen import sightings, webpage

    params, explore = load("unseen", UnseenParams), load("explore", Explore)
    redis = connect()
    until = _instant(now) if now else sightings.newest_list(redis)
    if not until:
        raise DataError("impressions", "nothing was ever shown", next_step="serve shoppers, or give --now")
    room = showroom.opened(redis)
    report, due, reach = triage(redis, room, until, hours or params.hours, params)
    reach["lists_a_day"] = sum(reach["lists_a_day"][surface] for surface in explore.surfaces)
    report |= {"exploration": _bill(redis, explore) | reach, "runs": _earlier(report, params.runs)}
    write_json(at(UNSEEN), report)
    webpage.write_picture(report, at(UNSEEN_PICTURE))
    webpage.write_page(report, at(UNSEEN_PAGE), UNSEEN_PICTURE.name)
    if explore.share:
        slots = explore.per_day * len(explore.surfaces)  # a product needs one
        budget.publish(redis, OnOffer(until, tuple(due[:slots])))
    else:
        budget.withdraw(redis)
    print(orjson.dumps(report).decode()) if json_output else show(report, params.named)
    return 0


def triage(
    redis: Any, room: Any, now: int, hours: float, params: UnseenParams
) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """The report but for exploration and earlier runs; the products due to be explored; what all of it takes.

    Due is what could be sold and would be unseen by the next run, longest unseen first: an offer of what is
    unseen already would leave each product unseen for `every` hours of its round. `room`:
    monitoring.fitting.showroom.Showroom.
    """
    from pipelines.unseen import sightings
    from pipelines.unseen.causes import CAUSES, COULD_BE_SOLD, blocking, cause, places
    from serving.rules import published

    seen = sightings.read(redis, now, params.days)
    words = _titles(room)
    since, early = (now - round(left * HOUR_US) for left in (hours, max(hours - params.every, 0)))
    last_seen = {item: seen.last.get(item, 0) for item in words}
    unseen = {item for item, last in last_seen.items() if last <= early}
    rules, _ = published.documents(published.read(redis))
    lists, source = _lists(redis, room, now, rules, params)
    stands, blocked = places(lists, unseen), blocking(rules, lists, room.matrix, now)
    items, due = [], []
    for item in sorted(unseen, key=lambda item: (last_seen[item], item)):
        why, told = cause(item, room.matrix, blocked, stands[item], now, hours)
        if why in COULD_BE_SOLD and why != "blocked":
            due.append(item)
        if last_seen[item] > since:
            continue
        last = instant(seen.last[item]).isoformat() if item in seen.last else None
        one: dict[str, Any] = {
            "item_id": item,
            "title": words[item],
            "cause": why,
            "told": told,
            "last_seen": last,
        }
        items.append(one | {"rank": stands[item].rank, "gap": stands[item].gap})
    items.sort(key=lambda one: one["item_id"])
    causes = Counter(one["cause"] for one in items)
    could = sum(causes[name] for name in COULD_BE_SOLD)
    saved = sum(last > since >= seen.own.get(item, 0) for item, last in last_seen.items())
    without = could + saved
    slots = ceil(without * 24 / hours)
    reach = {"unseen_without": without, "slots_a_day": slots, "lists_a_day": seen.lists}
    report = {
        "now": instant(now).isoformat(),
        "hours": hours,
        "source": source,
        "products": len(words),
        "unseen": len(items),
        "could_be_sold": could,
        "causes": {name: causes[name] for name in CAUSES if causes[name]},
        "days": sightings.by_day(seen, sorted(words), params.tail),
        "items": items,
    }
    return report, due, reach


def _titles(room: Any) -> dict[str, str]:
    """Item -> title of the whole catalogue: the release's, later ones, and what the export alone names."""
    table = pq.read_table(existing(ITEMS, "ingest", "item_id", "title"), columns=["item_id", "title"])
    told = dict(zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True))
    shown = dict(zip(room.matrix.ids, room.matrix.shown.get("title", room.matrix.ids), strict=True))
    return {item: str(title or item) for item, title in (told | room.titles | shown).items()}


def _lists(redis: Any, room: Any, now: int, rules: Any, params: UnseenParams) -> tuple[list[Any], str]:
    """The lists that are searched, and what they are in words."""
    from pipelines.unseen.causes import answered, logged
    from serving.live.exposures import SERVED, decode
    from serving.release.state import EXPOSURES
    from serving.rules.compiled import Compiled
    from serving.types import Request

    entries = redis.xrevrange(SERVED, count=params.answers)
    lists = logged(meta for meta, _ in decode(entries, Counter()) if meta["ts"] <= now)
    if lists:
        return lists, f"{len(lists):,} logged answers and their candidates"
    compiled, found = Compiled(rules, room.matrix, now), []
    for _, fields in redis.xrevrange(EXPOSURES, count=params.asked):
        told = orjson.loads(fields[b"exposure"])
        request = Request(told["surface"], told["user_id"], told["session_id"])
        steering = compiled.steering(request, now)
        (served,) = room.lists(request, now, steering)
        found.append(answered(request, now, served, room.matrix, bool(steering.rules)))
    return found, f"{len(found):,} logged questions, answered again by the release that serves"


def _bill(redis: Any, explore: Explore) -> dict[str, Any]:
    from monitoring.experiment.attribution import Feedback, FeedbackParams
    from monitoring.experiment.tail import Tail
    from pipelines.unseen.bill import bill

    feedback = Feedback(load("feedback", FeedbackParams), journal=True)
    Tail(redis).feed(feedback)
    return {"share": explore.share, "per_day": explore.per_day, **bill(feedback.exposures())}


def _earlier(report: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """Sums of this run and of the `most` before it; a run of the same instant takes the other's place."""
    held = orjson.loads(at(UNSEEN).read_bytes()).get("runs", []) if at(UNSEEN).exists() else []
    runs = {run["now"]: run for run in held} | {report["now"]: {name: report[name] for name in RUN}}
    return [runs[when] for when in sorted(runs)][-most:]


def _instant(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.min
    if found.tzinfo is None:
        raise ParamsError(
            f"--now: {text!r} is not allowed; allowed: an instant with a time zone, 2026-03-01T00:00:00+00:00"
        )
    return micros(found)


def show(report: Mapping[str, Any], named: int) -> None:
    """Sums, causes and the first products, in 80 columns."""
    out = console()
    many, hours = f"{report['unseen']:,} of {report['products']:,}", f"{report['hours']:g}"
    out.print(f"{many} products without an impression for {hours} hours")
    out.print(f"before {report['now'][:16]} UTC; {report['could_be_sold']:,} of them could be sold")
    out.print(f"causes: {report['source']}")
    if report["days"]:
        day = report["days"][-1]
        tail = "-" if day["tail_share"] is None else f"{day['tail_share']:.1%}"
        told = f"Gini {day['gini']:.3f}, coverage {day['coverage']:.1%}"
        out.print(f"last day: long tail {tail} of the impressions, {told}")
    causes = table(None, ["cause", ">products"])
    for name, count in report["causes"].items():
        causes.add_row(name, f"{count:,}")
    out.print(causes)
    products = table(None, ["product", "title", "cause", ">rank", ">short", "last seen"])
    for one in [one for one in report["items"] if one["cause"] != "sold out"][:named]:
        rank, gap = ("" if one["rank"] is None else f"{one['rank']}", f"{one['gap'] or 0:.2f}")
        last = (one["last_seen"] or "never")[:10]
        short = gap if one["cause"] == "outranked" else ""
        products.add_row(_cell(one["item_id"], 12), _cell(one["title"], 18), one["cause"], rank, short, last)
    out.print(products)
    spent = report["exploration"]
    need, lists = f"{spent['slots_a_day']:,} slots a day", f"{spent['lists_a_day']:,} of the last day"
    out.print(f"to reach all: {need}, one in a list; lists that could: {lists}")
    out.print(f"could be sold and unseen, had nothing been explored: {spent['unseen_without']:,}")
    if spent.get("ctr_change"):
        change, low, high = spent["ctr_change"]
        clicks, least, most = spent["clicks"]
        interval = f"{change:+.2%} ({low:+.2%} to {high:+.2%})"
        out.print(f"explored: {spent['explored']['lists']:,} slots, whose CTR changed by {interval}")
        out.print(f"clicks by it: {clicks:+.0f} ({least:+.0f} to {most:+.0f})")


def _cell(text: str, width: int) -> str:
    """Of a terminal, without markup or control characters."""
    return "".join(c if c.isprintable() else " " for c in text).replace("[", "(").replace("]", ")")[:width]
