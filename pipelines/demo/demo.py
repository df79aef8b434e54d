"""`endcap demo`: the whole path on one machine, told to somebody who keeps a shop."""

import hashlib
import json
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from feature_repo.offline.duck import connect as duck
from feature_repo.params import Shop, load, named_shop, root, shop
from feature_repo.places import CANDIDATE, EVENTS, ITEMS, at
from feature_repo.ports import SECRET, authorization, console_url, service_url, storefront_url
from feature_repo.terminal import progress
from pipelines.demo import window
from pipelines.demo.canaries import DemoParams, canary, misset
from pipelines.ingest.shop import choose
from pipelines.local import stack, story
from pipelines.local.story import StepError, endcap, reproduce, say, step
from pipelines.release.aliases import read_manifest
from pipelines.simulate.crowd import drive
from pipelines.simulate.observed import Observed
from pipelines.simulate.shopper import Manners
from pipelines.simulate.world import World

SLOTS_SHOWN = 5


def prepare(data: str, source: Path | None) -> Shop:
    """The chosen shop, with another one's processes out of the way, its ports free and its data checked."""
    before = shop()
    if before.name != named_shop(data).name and (stopped := stack.take_down()):
        say(f"stopped shop {before.name}: {', '.join(stopped)}")
    chosen = choose(data, source)
    stack.require_ports()
    os.environ["ENDCAP_REPLAY"] = "1"  # the clock of the service is that of the data
    say(f"Whatever the stages and the libraries say is kept in {_logs(chosen)}/")
    reproduce("ingest", _logs(chosen) / "dvc.log")
    shown = root() / "run" / ".shown"  # by `make install`, just before
    if not shown.exists():
        window.main()
    shown.unlink(missing_ok=True)
    return chosen


def _logs(chosen: Shop) -> Path:
    return (chosen.run_dir() / "logs").relative_to(root())


def sample_answer(who: str) -> dict[str, Any]:
    """What the service recommends to `who` on the homepage."""
    asked = urllib.parse.urlencode({"surface": "homepage_hero", "user_id": who})
    url = f"{service_url()}/v1/recommend?{asked}"
    request = urllib.request.Request(url, headers=authorization(SECRET))
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def _newest(column: str) -> Iterator[pa.ChunkedArray]:
    """The values of a column of the events that are there, row group by row group, the newest first."""
    events = pq.ParquetFile(at(EVENTS))
    for group in reversed(range(events.num_row_groups)):  # the file is sorted by time
        yield events.read_row_group(group, columns=[column]).column(column).drop_null()


def haste() -> float:
    """How many times as often simulated shoppers come as visits began in the last week of the data."""
    file = str(at(EVENTS))
    lately = "event_ts > (SELECT max(event_ts) FROM read_parquet(?)) - INTERVAL 7 DAY"
    with duck() as connection:
        asked = f"SELECT count(DISTINCT session_id) FROM read_parquet(?) WHERE {lately}"
        (visits,) = connection.execute(asked, [file, file]).fetchall()[0]
    return float(timedelta(days=7).total_seconds() / load("shoppers", Manners).seconds_between / visits)


def materialize_once(chosen: Shop) -> None:
    """`endcap materialize`, unless Redis holds these features and the stream has moved them on."""
    marker, made = chosen.run_dir() / "materialized.txt", hashlib.sha256((root() / "dvc.lock").read_bytes())
    if marker.exists() and marker.read_text() == made.hexdigest():
        say("they are there from the last run")
        return
    stack.take_down(("stream",))
    endcap("materialize")
    marker.write_text(made.hexdigest())


def live(chosen: Shop, again: bool) -> None:
    """The simulated shop: shoppers of the world that made the data, a canary that holds, one that falls."""
    params = load("demo", DemoParams)
    world = World.load(root() / chosen.source / "truth.npz")
    kept, now = chosen.run_dir() / "shoppers_until.txt", next(_newest("event_ts"))[-1].as_py()
    if kept.exists():  # no event may precede the last one of an earlier run
        now = max(now, datetime.fromisoformat(kept.read_text()))
    # Another run is another day: the same dice would repeat the ids of events that are known already.
    dice = np.random.default_rng([params.seed, int(now.timestamp())])
    gap = timedelta(seconds=load("shoppers", Manners).seconds_between)

    def visitors(count: int) -> Observed:
        nonlocal now
        with progress(total=count, desc="  shoppers", leave=False) as bar:
            seen = drive(service_url(), world, dice, shoppers=count, start=now, on_progress=bar.update)
        now += count * gap
        kept.write_text(now.isoformat())
        return seen

    with step("Simulated shoppers visit; their clicks come back as events and change the next answer"):
        for line in visitors(params.shoppers).lines():
            say(line)
    candidate = at(CANDIDATE)
    shown, release = chosen.run_dir() / "canaries.txt", read_manifest(candidate)["digest"]
    if not again and shown.exists() and shown.read_text() == release:
        say(f"Those of release {release[:12]} were shown before; `endcap demo --again` repeats them")
        return
    with step("A good challenger climbs 10 % -> 50 % -> 100 %: the candidate, against a mis-set release"):
        endcap("promote", "--direct", "--bundle", misset(candidate))
        endcap("promote")
        if not canary(visitors, params, "demo: the trained candidate"):
            raise StepError("the good challenger was rolled back; `endcap rollout status` tells the numbers")
    with step("A bad challenger starts at 10 % and is rolled back by the click-through guard"):
        endcap("promote", "--bundle", misset(candidate))
        if canary(visitors, params, "demo: a setting changed after staging"):
            raise StepError("the bad challenger was promoted; `endcap rollout status` tells the numbers")
    shown.write_text(release)


def replayed(chosen: Shop) -> None:
    """A real shop: its own test sessions over HTTP in their order, then the quality on them."""
    with step(f"Real sessions since {chosen.test_from:%Y-%m-%d} are replayed over HTTP, in their order"):
        endcap("replay")
    with step("Quality on those sessions: NDCG@12 and coverage, beside the baselines of the same run"):
        endcap("evaluate", "--show")


def farewell(answer: dict[str, Any], who: str) -> None:
    """The sample answer as a list of products, and five lines to go on with."""
    named = pq.read_table(at(ITEMS), columns=["item_id", "title", "price"])
    products = {row["item_id"]: row for row in named.to_pylist()}
    with step(f"What the homepage now shows to {who}, the last known shopper"):
        for slot in answer["items"][:SLOTS_SHOWN]:
            say(f"{slot['slot'] + 1:>3}. {window.priced(products.get(slot['item_id'], {}))}")
        say(f"and {len(answer['items']) - SLOTS_SHOWN} more")
    where = f"{service_url()}/v1/recommend?surface=homepage_hero&user_id={urllib.parse.quote(who, safe='')}"
    story.console.print("\n[bold]It goes on running. What you can do now:[/]")
    say(f"Shop  {storefront_url()}/")
    say(f"Ask   {where}")
    say(f"Watch {console_url()}/  (tokens: run/{shop().name}/tokens.json, `console`)")
    say("Read  data/reports/: drift.html, evaluate.png, data_docs/raw/index.html")
    say("Stop  make down")
    say("Next  your own shop: docs/ingest.md; what a canary costs: endcap rollout plan")


def main(
    data: Annotated[str, typer.Option(help="A section of `shops` in params.yaml.")] = "simulated",
    source: Annotated[Path | None, typer.Option(help="Folder of the raw export, if elsewhere.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Show the canaries of a release once more.")] = False,
) -> None:
    """The whole path on this machine, told step by step, from raw events to a watched release."""
    with step(f"The shop '{data}': its export is checked row by row"):
        chosen = prepare(data, source)
    simulated = chosen.adapter == "simulated"
    with step("What shoppers did becomes features, models and a release that has to pass the gate"):
        reproduce("bundle", _logs(chosen) / "dvc.log")
    with step("A Redis starts: it holds the features of now, the stream of events, who serves"):
        stack.bring_up(("redis",))
    with step("The release passes the gate once more and becomes the champion"):
        endcap("promote", "--direct")
    with step("Features as of the last event go to Redis, through Feast"):
        if simulated:
            materialize_once(chosen)
        else:  # an earlier replay has moved them on, and the consumer remembers
            stack.take_down(("stream", "service"))
            endcap("materialize", "--fresh", "--forget-log")
    with step("The stream consumers, the service and the console start"):
        stack.bring_up()
    if simulated:
        live(chosen, again)
    else:
        replayed(chosen)
    with step("Are live answers still like the release's own of before? The drift report"):
        endcap("drift")
        if simulated:
            say(f"Shoppers came {haste():.0f} times as often as in the data, so views are more")
    if simulated:
        with step("Which products did nobody see, and why? The triage of the long tail"):
            endcap("unseen")
    with step("Where the time of the last training went"):
        endcap("stages", "--show")
    with step("A little shop opens: look at a product there, and its shelves change and say why"):
        stack.bring_up(("storefront",))
        say(f"{storefront_url()}/")
    who = next((users[-1].as_py() for users in _newest("user_id") if len(users)), "nobody-known")
    farewell(sample_answer(who), who)
