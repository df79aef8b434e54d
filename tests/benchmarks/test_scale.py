"""docs/scale.md says what its own figures come to, and its figures are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import uvloop
from capacity import Demand, Plan, estimate
from figures import FLOWS, QUANTITIES, SHAPE, part, read, tables, told
from footprint import measure

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text()
TOLD = read(part(PAGE, "measured"))
PAST = ("shopper", "visit")  # rows that hold what was done: a smaller shop does other things
BYTES = [name for name in QUANTITIES if name not in (*PAST, "snapshot_ns")]


def test_the_plan_of_the_page_is_what_its_figures_come_to() -> None:
    assert part(PAGE, "plan") == estimate(TOLD, Demand()), "benchmarks/footprint.py --told prints it anew"


def test_every_limit_of_the_plan_has_its_consequence_in_the_order_of_the_plan() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", PAGE.partition("| limit | what gives way")[2], re.M)
    assert rows[: len(Plan(TOLD, Demand()).limits())] == [what for what, *_ in Plan(TOLD, Demand()).limits()]


def test_the_prose_repeats_the_figures_of_the_tables() -> None:
    us = sum(TOLD[f"{flow}_{cost}"] for flow in ("door", "visitors", "items") for cost in ("cpu", "redis"))
    assert f"adds up to {us:.0f} us, so two cores would carry {told(2e6 / us)} events a second" in PAGE
    asked, met = Demand().rate, dict(limits(Demand()))
    memory, thread, writer = (
        told(asked / met[what])
        for what in ("one Redis: memory, without the log", "one Redis: its thread", "one writer of items")
    )
    prose = " ".join(PAGE.split())
    assert f"its memory at {memory} lists a second" in prose and f"its thread at {thread};" in prose
    assert f"the one writer of items, at {writer}." in prose


def test_figures_are_read_as_they_were_written() -> None:
    assert read(tables(TOLD, {})) == TOLD
    assert set(TOLD) >= {*QUANTITIES, *SHAPE} and len(TOLD) == len(QUANTITIES) + 4 * len(FLOWS) + len(SHAPE)


def test_a_shop_of_one_machine_meets_no_limit_and_twice_the_lists_are_met_twice_as_soon() -> None:
    small = Demand(shoppers=1e5, items=12_000, rate=20)
    assert all(asks <= bears for _, bears, asks, _ in Plan(TOLD, small).limits())
    once, twice = (dict(limits(Demand(rate=rate))) for rate in (1_000, 2_000))
    assert twice["exposures kept"] == pytest.approx(2 * once["exposures kept"])
    assert twice["EASE"] == once["EASE"]
    more = Plan(TOLD, Demand(shoppers=200e6))
    assert more.redis_bytes - Plan(TOLD, Demand()).redis_bytes == pytest.approx(100e6 * TOLD["shopper"])


def limits(demand: Demand) -> list[tuple[str, float]]:
    return [(what, asks / bears) for what, bears, asks, _ in Plan(TOLD, demand).limits()]


def test_the_bytes_of_the_page_are_measured_again_in_smaller_shops() -> None:
    found, _ = uvloop.run(measure(((150, 80), (300, 160)), (2_000, 6_000)))
    assert {name: found[name] for name in BYTES} == pytest.approx({n: TOLD[n] for n in BYTES}, rel=0.25)
    assert all(TOLD[name] / 2 < found[name] <= TOLD[f"{name}_full"] for name in PAST)
    assert all(found[f"{name}_{cost}"] > 0 for name in FLOWS for cost in ("cpu", "redis", "net", "aof"))
