"""`endcap demo`: the whole path on one machine, each step told in a sentence and shown as a command."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer
from rich.console import Console
from tqdm import tqdm

from feature_repo.errors import EndcapError
from feature_repo.params import Shop, load, root, shop
from feature_repo.places import CANDIDATE, EVENTS, at
from feature_repo.ports import console_url, service_url
from pipelines.ingest.shop import choose
from pipelines.local import stack
from pipelines.local.canaries import DemoParams, SimulatedTime, Visitors, canary, misset
from pipelines.simulate.crowd import drive
from pipelines.simulate.observed import Observed
from pipelines.simulate.shopper import Manners
from pipelines.simulate.world import World

DVC_CHATTER = ("To track the changes", "git add", "To enable auto staging", "dvc config", "Use `dvc push`")
console = Console(highlight=False)


class DemoError(EndcapError):
    """A step of the demo failed; what it said stands above the message."""


@contextmanager
def step(told: str) -> Iterator[None]:
    """One step: what happens, in plain words, and how long it took."""
    console.print(f"\n[bold cyan]▸ {told}[/]")
    started = time.monotonic()
    yield
    console.print(f"  [dim]{time.monotonic() - started:.1f} s[/]")


def endcap(*args: str) -> None:
    """Run one job as a reader would; raises DemoError unless it ends with 0."""
    _show("endcap", *args)
    _check(subprocess.run([sys.executable, "-m", "pipelines", *args], cwd=root()).returncode, "endcap", *args)


def reproduce(target: str = "bundle") -> None:
    """`dvc repro`: only the stages whose code, parameters or data changed since the last run."""
    _show("dvc", "repro", target)
    # The stages call `endcap`, which has to be the one of this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "dvc", "repro", target]
    env = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=root(), env=env, stdout=subprocess.PIPE, text=True) as dvc:
        assert dvc.stdout is not None  # because of PIPE
        for line in dvc.stdout:
            if line.strip() and not line.strip().startswith(DVC_CHATTER):
                console.print(f"  {line.rstrip()}", markup=False)
    _check(dvc.returncode, "dvc", "repro", target)


def _show(*command: str) -> None:
    console.print(f"  [green]$ {' '.join(command)}[/]")


def _check(code: int, *command: str) -> None:
    if code:
        raise DemoError(f"`{' '.join(command)}` ended with {code}; the reason stands above")


def prepare(data: str, source: Path | None) -> Shop:
    """The chosen shop, with the processes of another one out of the way."""
    before, chosen = shop(), choose(data, source)
    if before.name != chosen.name and (stopped := stack.take_down()):
        console.print(f"  stopped shop {before.name}: {', '.join(stopped)}")
    return chosen


def sample_answer() -> dict[str, Any]:
    """What the service recommends to the last known visitor of the data, on the homepage."""
    who = urllib.parse.quote(_last_visitor(), safe="")
    with urllib.request.urlopen(
        f"{service_url()}/v1/recommend?surface=homepage_hero&user_id={who}", timeout=10
    ) as answer:
        return json.load(answer)


def _last_visitor() -> str:
    events = pq.ParquetFile(at(EVENTS))
    for group in reversed(range(events.num_row_groups)):  # the file is sorted by time
        users = events.read_row_group(group, columns=["user_id"]).column("user_id").drop_null()
        if len(users):
            return users[-1].as_py()
    return "nobody-known"


def materialize_once(chosen: Shop) -> None:
    """`endcap materialize`, unless Redis holds these features and the stream has moved them on."""
    marker, made = chosen.run_dir() / "materialized.txt", hashlib.sha256((root() / "dvc.lock").read_bytes())
    if marker.exists() and marker.read_text() == made.hexdigest():
        _say("they are there from the last run")
        return
    stack.take_down(("stream",))
    endcap("materialize")
    marker.write_text(made.hexdigest())


def live(chosen: Shop, again: bool) -> None:
    """The simulated shop: shoppers of the world that made the data, a canary that holds, one that falls."""
    params = load("demo", DemoParams)
    world = World.load(root() / chosen.source / "truth.npz")
    clock = SimulatedTime(chosen.run_dir(), _last_event())
    # Another run is another day: the same dice would repeat the ids of events that are known already.
    dice = np.random.default_rng([params.seed, int(clock.now.timestamp())])
    gap = timedelta(seconds=load("shoppers", Manners).seconds_between)

    def visitors(count: int) -> Observed:
        with tqdm(total=count, desc="  shoppers", leave=False, disable=None) as bar:
            seen = drive(service_url(), world, dice, shoppers=count, start=clock.now, on_progress=bar.update)
        clock.move_to(clock.now + count * gap)
        return seen

    with step("Simulated shoppers visit; their clicks come back as events and change the next answer"):
        for line in visitors(params.shoppers).lines():
            _say(line)
    shown, release = chosen.run_dir() / "canaries.txt", _digest(root() / CANDIDATE)
    if not again and shown.exists() and shown.read_text() == release:
        _say(f"The canaries of release {release} were shown before; `endcap demo --again` repeats them.")
        return
    with step("A good challenger climbs 10 % -> 50 % -> 100 %: the candidate, against a mis-set release"):
        good_challenger(visitors, params)
    with step("A bad challenger starts at 10 % and is rolled back by the click-through guard"):
        bad_challenger(visitors, params)
    shown.write_text(release)


def good_challenger(visitors: Visitors, params: DemoParams) -> None:
    """A release with a wrong setting serves, the candidate is on trial and takes over."""
    candidate = root() / CANDIDATE
    endcap("promote", "--direct", "--bundle", str(misset(candidate).relative_to(root())))
    endcap("promote")
    if not canary(visitors, params, _say, "demo: the trained candidate"):
        raise DemoError("the good challenger was rolled back; `endcap rollout status` tells the numbers")


def bad_challenger(visitors: Visitors, params: DemoParams) -> None:
    """The candidate serves, the release with the wrong setting is on trial and falls."""
    candidate = root() / CANDIDATE
    endcap("promote", "--bundle", str(misset(candidate).relative_to(root())))
    if canary(visitors, params, _say, "demo: a setting changed after staging"):
        raise DemoError("the bad challenger was promoted; `endcap rollout status` tells the numbers")


def _say(line: str) -> None:
    console.print(f"  {line}", markup=False)


def _digest(bundle: Path) -> str:
    digest: str = json.loads((bundle / "manifest.json").read_text())["digest"]
    return digest


def _last_event() -> datetime:
    events = pq.ParquetFile(at(EVENTS))
    return (
        events.read_row_group(events.num_row_groups - 1, columns=["event_ts"]).column("event_ts")[-1].as_py()
    )


def replayed(chosen: Shop) -> None:
    """A real shop: its own test sessions over HTTP in their order, then the quality on them."""
    with step(f"Real sessions since {chosen.test_from:%Y-%m-%d} are replayed over HTTP, in their order"):
        endcap("replay")
    with step("Quality on those sessions: NDCG@12 and coverage, beside the baselines of the same run"):
        endcap("evaluate", "--show")


def farewell(answer: Mapping[str, Any]) -> None:
    """The sample answer, where things are, and how to end them."""
    console.print("\n[bold]One answer of the service that is now running:[/]")
    console.print_json(json.dumps(answer))
    console.print(f"\nService  {service_url()}/v1/recommend?surface=homepage_hero&user_id=YOU")
    console.print(f"Console  {console_url()}   token in run/{shop().name}/console.token")
    console.print("Drift    data/reports/drift.html")
    console.print("Stop     make down", end="\n\n")


def main(
    data: Annotated[str, typer.Option(help="A section of `shops` in params.yaml.")] = "simulated",
    source: Annotated[Path | None, typer.Option(help="Folder of the raw export, if elsewhere.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Show the canaries of a release once more.")] = False,
) -> None:
    """The whole path on this machine, told step by step, from raw events to a watched release."""
    with step(f"The shop: {data}"):
        chosen = prepare(data, source)
    simulated = chosen.adapter == "simulated"
    os.environ["ENDCAP_REPLAY"] = "1"  # the clock of the service is that of the data
    with step("Events become checked data, features, two models, an evaluated and gated release candidate"):
        reproduce()
    with step("An embedded Redis starts: online features, the event stream, the state of the rollout"):
        stack.bring_up(("redis",))
    with step("The candidate passes its gates once more and becomes the champion"):
        endcap("promote", "--direct")
    with step("Features as of the test cut go from the offline store to Redis, through Feast"):
        if simulated:
            materialize_once(chosen)
        else:  # an earlier replay has moved them on, and the consumer remembers
            stack.take_down(("stream", "service"))
            endcap("materialize", "--fresh", "--forget-log")
    with step("The stream consumer, the service and the console start"):
        stack.bring_up()
    if simulated:
        live(chosen, again)
    else:
        replayed(chosen)
    with step("What was served against what the ranker was trained on: the drift report"):
        endcap("drift")
    farewell(sample_answer())
