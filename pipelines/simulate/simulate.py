"""`endcap simulate`: the export of the simulated shop in data/export, and the truth behind it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from feature_repo import params
from feature_repo.clock import DAY_US
from feature_repo.errors import ParamsError
from feature_repo.places import REPORTS, at
from feature_repo.terminal import progress
from pipelines.simulate.arrivals import Sessions, schedule
from pipelines.simulate.assortment import Supply, catalogue_table, make_assortment
from pipelines.simulate.departments import DEPARTMENTS
from pipelines.simulate.facts import draw, facts
from pipelines.simulate.journeys import Journey, Walk
from pipelines.simulate.tables import event_tables, names_of
from pipelines.simulate.world import Population, Taste, World, make_shoppers


@dataclass(frozen=True)
class Size:
    """How large a shop is; one entry of `simulate.sizes`."""

    departments: int
    skus: int
    sessions: int


@dataclass(frozen=True)
class Simulate:
    """Section `simulate` of params.yaml."""

    seed: int
    sizes: dict[str, Size]
    start: datetime
    end: datetime
    late_login_share: float
    late_event_share: float
    supply: Supply
    population: Population
    taste: Taste
    journey: Journey

    def size_of(self, name: str) -> Size:
        """Entry `name` of `sizes`. Raises ParamsError if there is none, or it does not fit the categories."""
        if name not in self.sizes:
            raise ParamsError(f"simulate.sizes: '{name}' is unknown; allowed: {', '.join(self.sizes)}")
        size = self.sizes[name]
        if not 1 <= size.departments <= len(DEPARTMENTS):
            raise ParamsError(
                f"simulate.sizes.{name}.departments: {size.departments}; allowed: 1 to {len(DEPARTMENTS)}"
            )
        if size.skus < 6 * size.departments or size.sessions < 1:
            raise ParamsError(
                f"simulate.sizes.{name}: {size.skus} skus, {size.sessions} sessions; "
                f"allowed: {6 * size.departments} skus (one per leaf) and 1 session, or more"
            )
        return size

    @property
    def days(self) -> int:
        return (self.end - self.start).days


@dataclass(frozen=True)
class Simulation:
    """A finished run in memory: the world, who came, what happened, and the three tables of the export."""

    world: World
    sessions: Sessions
    log: dict[str, np.ndarray]  # Diary.finish()
    events: pa.Table
    impressions: pa.Table
    items: pa.Table


def make_world(constants: Simulate, size: Size, rng: np.random.Generator) -> World:
    """The assortment and the shoppers of a shop of that size."""
    shop = make_assortment(size.departments, size.skus, constants.days, constants.supply, rng)
    people = make_shoppers(size.sessions, shop, constants.days, constants.population, rng)
    return World(shop, people, constants.taste, constants.population, constants.start)


def simulate(constants: Simulate, size: Size, rng: np.random.Generator) -> Simulation:
    """Eight weeks (or what `constants` says) of the shop; the same rng state gives the same tables."""
    world = make_world(constants, size, rng)
    sessions = schedule(world, size.sessions, constants.days, rng)
    with progress(desc="pages shown", unit=" pages") as bar:
        log = Walk(world, sessions, constants.journey, rng).run(constants.days * DAY_US, bar.update)
    named_after = names_of(world, sessions, constants.late_login_share, rng)
    events, impressions = event_tables(
        log, world, sessions, constants.start, named_after, constants.late_event_share, rng
    )
    items = catalogue_table(world.shop, constants.start, constants.end, rng)
    return Simulation(world, sessions, log, events, impressions, items)


def write(run: Simulation, folder: Path) -> None:
    """events.parquet, impressions.parquet, items.parquet and truth.npz in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("events", run.events), ("impressions", run.impressions), ("items", run.items)):
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    run.world.save(folder / "truth.npz")


def main(
    seed: Annotated[int | None, typer.Option(help="Another seed than that of params.yaml.")] = None,
    size: Annotated[
        str | None, typer.Option(help="An entry of simulate.sizes; default: the one called like the shop.")
    ] = None,
) -> int:
    """Invent a shop: its catalogue, its shoppers and eight weeks of their events."""
    shop = params.shop()
    if shop.adapter != "simulated":
        print(f"shop '{shop.name}' brings its own data ({shop.adapter}, {shop.source}); nothing to simulate")
        return 0
    constants = params.load("simulate", Simulate)
    rng = np.random.default_rng(constants.seed if seed is None else seed)
    run = simulate(constants, constants.size_of(size or shop.name), rng)
    write(run, params.root() / shop.source)
    picture = REPORTS / "simulate.png"
    draw(run.world, run.sessions, run.log, at(picture))
    for name, value in facts(run.world, run.sessions, run.log).items():
        print(f"{name:<32}{value}")
    print(f"{shop.source} written; {picture} shows it")
    return 0
