"""A large shop's plan by what footprint.py measured: what it takes, and which limit is met first.

Arithmetic over the figures of docs/scale.md, the settings of params.yaml, and rates that other pages print.
All of it is an estimate: nothing of this size ever ran.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from figures import Measured, Row, markdown, told

from feature_repo.online.changes import CHANGED_KEPT
from serving.live.online_features import PAUSE_S, REFRESHED

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
DAY_S, HOUR_S = 86_400.0, 3_600.0
LIST_MS = 1.64  # CPU of a list with 200 rules, 12,000 items: docs/operations.md, benchmarks/rules.py
BACKFILL = 10e6 / 251 / 2  # events a second and core: docs/features.md, benchmarks/backfill.py, two processes
TITLE_MS = 7.0  # CPU of a title's vector: docs/stream.md
REREAD = REFRESHED / (PAUSE_S + 0.0004)  # rows of items a second that a worker reads, decoding included
ENTRY, NUMBER = 8, 4  # bytes of a table's entry (float32 and int32) and of a float32
Figure = tuple[str, str, float, str]  # what, arithmetic, value, unit
Limit = tuple[str, float, float, str]  # what, bears, the plan asks, unit


@dataclass(frozen=True)
class Demand:
    """What is asked for, and what is assumed; none of it is measured."""

    shoppers: float = 100e6  # seen within two years
    items: float = 10e6
    rate: float = 50_000  # lists a second in the busiest hour
    peak: float = 2.5  # that hour over the mean
    shelves: float = 4  # lists of a page; a simulated page has one
    use: float = 0.5  # of a core, a disk
    replicas: float = 1  # of a shard of Redis
    shard_gb: float = 20  # of one Redis process: copied within minutes
    copies: float = 3  # of a partition of Kafka
    kafka_hours: float = 48
    partition_mb_s: float = 5  # what one partition of Kafka is given
    history_days: float = 90  # of events, in a training
    window_h: float = 6  # that a training may take
    new_share: float = 0.002  # of the items, new each day
    cores: float = 32  # of a machine, and its
    memory_gb: float = 256
    disk_tb: float = 8


@cache
def settings() -> Any:
    return yaml.safe_load(PARAMS.read_text())


@dataclass(frozen=True)
class Plan:
    """What `d` takes by the figures `m`; rates are those of the busiest hour."""

    m: Measured
    d: Demand

    @cached_property
    def events(self) -> float:
        return self.d.rate * self.m["events_per_list"]

    @cached_property
    def events_a_day(self) -> float:
        return self.events / self.d.peak * DAY_S

    @cached_property
    def visits_a_day(self) -> float:
        return self.d.rate / self.d.peak * DAY_S / self.m["lists_per_visit"] / self.d.shelves

    @cached_property
    def window_s(self) -> float:
        """How long a list is looked for by its clicks."""
        return float(settings()["feedback"]["click_window_s"] + settings()["feedback"]["lateness_s"])

    def cores(self, us_a_second: float) -> float:
        return us_a_second / 1e6 / self.d.use

    def flow(self, cost: str) -> float:
        """`cost` a second of all that passes Redis."""
        of_events = sum(self.m[f"{name}_{cost}"] for name in ("door", "visitors", "items"))
        return self.events * of_events + self.d.rate * (self.m[f"show_{cost}"] + self.m[f"read_{cost}"])

    def memory(self) -> list[Figure]:
        """Of Redis, without replicas."""
        m, d, stream = self.m, self.d, settings()["stream"]
        keep, know = stream["keep_hours"] / 24, stream["remember_hours"] / 24
        hour, of_visit = self.visits_a_day * d.peak / 24, m["counted_visit"] + m["counted_client"]
        counted = d.rate * HOUR_S * m["counted_list"] + 2 * hour * of_visit
        day = settings()["serving"]["seen_ttl_s"] / DAY_S
        marks = self.events_a_day * (day * m["seen"] + 2 * know * m["done"])
        log, exposures = keep * self.events_a_day * m["logged"], self.window_s * d.rate * m["exposure"]
        return [
            ("shoppers", "shoppers x `shopper`", d.shoppers * m["shopper"], "B"),
            ("visits", "5 days of visits x `visit_full`", 5 * self.visits_a_day * m["visit_full"], "B"),
            ("items", "items x (`item` + `listed`)", d.items * (m["item"] + m["listed"]), "B"),
            ("marks of events", f"{day:g} day x `seen`, {know:g} days x 2 groups x `done`", marks, "B"),
            ("what was counted", "an hour of lists, two of visits and addresses", counted, "B"),
            ("exposures", f"{self.window_s:g} s of lists x `exposure`", exposures, "B"),
            ("log, unless in Kafka", f"{keep:g} day of events x `logged`", log, "B"),
        ]

    @cached_property
    def redis_bytes(self) -> float:
        """Without the log, which is Kafka's at this size."""
        return sum(held for what, _, held, _ in self.memory() if not what.startswith("log"))

    @cached_property
    def shards(self) -> int:
        return math.ceil(max(self.redis_bytes / 1e9 / self.d.shard_gb, self.cores(self.flow("redis"))))

    @cached_property
    def shared(self) -> float:
        """Bytes of a release in a machine: vectors and factors, tables full of neighbours, graphs."""
        p, n = settings(), self.d.items
        row = p["item_item"]["neighbours"] * ENTRY
        arrays = NUMBER * (
            p["two_tower"]["dim"] + p["als"]["factors"] + 1 + 6
        )  # attraction, six tables' rows
        tables = 4 * row * n + row * min(n, p["item_item"]["ease"]["max_items"])
        return arrays * n + tables + (2 * self.m["graph"] * n if n >= p["index"]["exact_below"] else 0)

    @cached_property
    def own(self) -> float:
        """Bytes that each worker has for itself."""
        return self.d.items * (self.m["private"] + self.m["snapshot"])

    @cached_property
    def fitting(self) -> float:
        """Workers of a machine, one a core at most."""
        room = (self.d.memory_gb * 1e9 - 2 * self.shared) / self.own
        return max(1.0, min(self.d.cores, math.floor(room)))

    def service(self) -> tuple[float, float]:
        """Cores for lists and for events."""
        http = settings()["cascade"]["overhead_ms"] * 1000
        posts = self.events / self.m["events_per_post"]
        lists = self.cores(self.d.rate * (LIST_MS * 1000 + http))
        return lists, self.cores(self.events * self.m["door_cpu"] + posts * http)

    @cached_property
    def changed(self) -> float:
        """Rows of items that change a second, at most: one of each event, each item once a look."""
        return min(self.events, self.d.items / settings()["serving"]["refresh_s"])

    @cached_property
    def consumers(self) -> tuple[float, float]:
        """Cores for rows of visitors and of items."""
        visitors, items = (self.cores(self.events * self.m[f"{name}_cpu"]) for name in ("visitors", "items"))
        return visitors, items

    @cached_property
    def written(self) -> float:
        """Bytes a second into Kafka, packed, one copy."""
        return self.events * self.m["packed"]

    @cached_property
    def kafka_bytes(self) -> float:
        return self.written / self.d.peak * self.d.kafka_hours * HOUR_S * self.d.copies

    @cached_property
    def history(self) -> float:
        """Events of a training."""
        return self.d.history_days * self.events_a_day

    @cached_property
    def backfill_h(self) -> float:
        """Hours of a core for the features of a training."""
        return self.history / BACKFILL / HOUR_S

    @cached_property
    def als(self) -> float:
        """Bytes of the factors of a training's visits."""
        return self.d.history_days * self.visits_a_day * float(settings()["als"]["factors"] * NUMBER)

    def takes(self) -> list[Figure]:
        m, d, p, (lists, events) = self.m, self.d, settings(), self.service()
        workers, machine = lists + events, 2 * self.shared + d.cores * self.own
        disk, titles = self.history * (m["raw"] + m["rows"]), d.items * TITLE_MS / 1000 / HOUR_S
        step = 7 * d.items * p["two_tower"]["dim"] * NUMBER
        memory = [(f"Redis: {what}", *rest) for what, *rest in self.memory()]
        return [
            ("lists", f"the busiest hour / {d.peak:g}", d.rate / d.peak * DAY_S, "a day"),
            ("visits", f"`lists_per_visit` x {d.shelves:g} shelves", self.visits_a_day, "a day"),
            ("events, busiest hour", "`events_per_list`", self.events, "a second"),
            ("events", "", self.events_a_day, "a day"),
            *memory,
            ("Redis: without the log", "", self.redis_bytes, "B"),
            ("Redis: CPU", "all flows", self.cores(self.flow("redis")), "cores"),
            ("Redis: shards", f"{d.shard_gb:g} GB, or a core, each", self.shards, "and as many replicas"),
            ("Redis: network", "all flows", self.flow("net") * 8, "bit/s"),
            ("Redis: its files", "all flows", self.flow("aof"), "B/s"),
            ("Redis: news of items", f"{workers:,.0f} workers read", workers * self.changed, "rows/s"),
            ("consumers: visitors", "`visitors`", self.consumers[0], "cores"),
            ("consumers: items", "`items`, were there many writers", self.consumers[1], "cores"),
            ("service: lists", f"{LIST_MS:g} ms, and HTTP", lists, "cores"),
            ("service: events", "`door`, and HTTP of each POST", events, "cores"),
            ("machine of the service: shared", "vectors, full tables, graphs; a release", self.shared, "B"),
            ("machine of the service: a worker's own", "`private` + `snapshot`", self.own, "B"),
            ("machine of the service: all", f"2 releases, {d.cores:g} workers", machine, "B"),
            ("offline store", f"{d.history_days:g} days x (`raw` + `rows`)", disk, "B"),
            (
                "training: features",
                f"{BACKFILL:,.0f} events a second and core",
                self.backfill_h,
                "core hours",
            ),
            ("training: titles, once", f"{TITLE_MS:g} ms each", titles, "core hours"),
            ("training: ALS", "factors of visits, 4 bytes each", self.als, "B"),
            ("training: a step of the towers", "7 x table of identities, read or written", step, "B"),
        ]

    def kafka(self) -> list[Figure]:
        d, hours = self.d, f"`retention.ms` = {self.d.kafka_hours * 3_600_000:.0f}"
        partitions = math.ceil(max(self.consumers[0], self.written / 1e6 / d.partition_mb_s))
        return [
            ("partitions", f"cores of visitors' tasks, or {d.partition_mb_s:g} MB/s each", partitions, ""),
            ("written, lz4", "`packed`, busiest hour, one copy", self.written, "B/s"),
            ("written, as shipped", "`json`", self.events * self.m["json"], "B/s"),
            ("read", "two groups, lz4", 2 * self.written, "B/s"),
            ("between brokers", f"{d.copies - 1:g} more copies, lz4", (d.copies - 1) * self.written, "B/s"),
            ("kept", hours, d.kafka_hours, "h"),
            ("disk", f"at the mean, {d.copies:g} copies, {d.use:.0%} full", self.kafka_bytes / d.use, "B"),
        ]  # fmt: skip

    def machines(self) -> list[Figure]:
        d, all_shards = self.d, self.shards * (1 + self.d.replicas)
        by_memory = 1.5 * all_shards * d.shard_gb / d.memory_gb
        by_disk = self.kafka_bytes / d.use / d.disk_tb / 1e12
        found = [
            ("service", f"{self.fitting:.0f} workers each, by memory", sum(self.service()) / self.fitting),
            ("consumers", "cores", sum(self.consumers) / d.cores),
            ("Redis", "memory, half again for a rewrite", max(by_memory, all_shards / d.cores)),
            ("Kafka", "disk, at least one for each copy", max(d.copies, by_disk)),
            ("training", f"features within {d.window_h:g} h", self.backfill_h / d.window_h / d.cores),
        ]
        rounded = [(what, by, float(math.ceil(many)), "") for what, by, many in found]
        return [*rounded, ("all", "", sum(many for _, _, many, _ in rounded), "")]

    def limits(self) -> list[Limit]:
        """What is exceeded most first."""
        m, d, p = self.m, self.d, settings()
        items, memory = p["item_item"], d.memory_gb * 1e9
        fits = memory / (2 * self.shared / d.items + d.cores * self.own / d.items)
        bears_open, bears_kept = p["feedback"]["most_open"], p["serving"]["exposures_kept"]
        found = [
            ("lists that the guard holds open", bears_open / self.window_s, d.rate, "lists/s"),
            ("exposures kept", bears_kept / self.window_s, d.rate, "lists/s"),
            ("rate of one key", p["access"]["rates"]["lists"]["key"]["per_s"], d.rate, "lists/s"),
            ("one writer of items", 1e6 / m["items_cpu"], self.events, "events/s"),
            ("one Redis: its thread", d.rate * 1e6 / self.flow("redis"), d.rate, "lists/s"),
            ("one Redis: memory, without the log", memory / 1.5, self.redis_bytes, "B"),
            ("rows of items that a worker reads again", REREAD, self.changed, "rows/s"),
            (
                "items changed between two looks",
                CHANGED_KEPT,
                self.changed * p["serving"]["refresh_s"],
                "items",
            ),
            ("a snapshot in a worker", p["serving"]["refresh_s"] * 1e9 / m["snapshot_ns"], d.items, "items"),
            ("memory of a machine of workers", fits, d.items, "items"),
            ("EASE", items["ease"]["max_items"], d.items, "items"),
            ("an index of 32 bits", 2**31 / items["neighbours"], d.items, "items"),
            ("new items between two fits", p["newborns"]["most"], d.items * d.new_share, "items"),
            ("features of a training", BACKFILL * d.cores * d.window_h * HOUR_S, self.history, "events"),
            ("ALS in the memory of a machine", memory, self.als, "B"),
        ]
        return sorted(found, key=lambda one: one[1] / one[2])


def estimate(m: Measured, demand: Demand) -> str:
    """Assumptions, plan, Kafka, machines, limits: as docs/scale.md has them."""
    plan, names = Plan(m, demand), [one.name for one in fields(Demand)]
    machine = f"machines of {demand.cores:g} cores, {demand.memory_gb:g} GB, {demand.disk_tb:g} TB"
    heads = ("part", plan.takes()), ("Kafka", plan.kafka()), (machine, plan.machines())
    parts = [markdown(("assumed", "value"), [(f"`{n}`", told(getattr(demand, n))) for n in names])]
    parts += [
        markdown((head, "by", "estimate"), [(a, b, told(c, unit)) for a, b, c, unit in rows])
        for head, rows in heads
    ]
    limits: list[Row] = [
        (what, told(bears, unit), told(asks, unit), told(asks / bears, ""))
        for what, bears, asks, unit in plan.limits()
    ]
    return "\n\n".join([*parts, markdown(("limit", "bears", "the plan asks", "times"), limits)])
