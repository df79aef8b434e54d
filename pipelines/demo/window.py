"""`endcap window`: a shop as its keeper knows it: departments, prices, best sellers, and one visit."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from feature_repo.events import ITEM_SCHEMA, PRODUCT_TYPES, SCHEMA
from feature_repo.params import load, named_shop, shop
from feature_repo.places import EVENTS, ITEMS, existing
from pipelines.simulate.simulate import Simulate, simulate

DEPARTMENTS, BEST, STEPS = 8, 5, 7  # lines shown of each
TITLE = 42  # characters of a product's name: every line fits 80 columns
DID = {
    "search": "searches",
    "product_viewed": "looks at",
    "add_to_cart": "adds to the cart",
    "remove_from_cart": "takes out again",
    "purchase_completed": "buys",
}


def view(name: str, events: pa.Table, items: pa.Table) -> Iterator[str]:
    """The lines about shop `name`, from tables in the schemas of feature_repo/events.py."""
    first, last = (pc.min_max(events["event_ts"])[end].as_py() for end in ("min", "max"))
    counts = _counts(events["type"])
    looks, carts, sales = (counts.get(kind, 0) for kind in PRODUCT_TYPES)
    yield f"Shop '{name}': {len(items):,} products, {first:%d %b %Y} to {last:%d %b %Y}"
    yield f"{looks:,} times a product was looked at, {carts:,} times put into a cart, {sales:,} sold"
    sold, looked = (
        _counts(events.filter(pc.equal(events["type"], kind))["item_id"].drop_null())
        for kind in ("purchase_completed", "product_viewed")
    )
    yield ""
    yield from _departments(items, sold)
    yield ""
    yield f"{'looked at':>9}{'sold':>7}     price  most looked at"
    products = {row["item_id"]: row for row in items.to_pylist()}
    for item in sorted(looked.keys() & products.keys(), key=lambda item: (-looked[item], item))[:BEST]:
        yield f"{looked[item]:>9,}{sold.get(item, 0):>7,}  {priced(products[item])}"
    yield ""
    yield from _visit(events, products)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}


def _departments(items: pa.Table, sold: dict[str, int]) -> Iterator[str]:
    """The largest departments: how many products, their prices, what was sold."""
    found: defaultdict[str, list[tuple[str, float | None]]] = defaultdict(list)
    columns = (items[name].to_pylist() for name in ("item_id", "category_path", "price"))
    for item, path, price in zip(*columns, strict=True):
        department = " / ".join((path or "(none)").strip("/").split("/")[:2])
        found[department].append((item, price))
    yield f"{'department':<34}{'products':>9}{'prices':>22}{'sold':>9}"
    ranked = sorted(found, key=lambda name: (-len(found[name]), name))
    for name in ranked[:DEPARTMENTS]:
        prices = [price for _, price in found[name] if price is not None]
        span = f"{min(prices):,.2f} - {max(prices):,.2f}" if prices else "unknown"
        units = sum(sold.get(item, 0) for item, _ in found[name])
        yield f"{_cut(name, 33):<34}{len(found[name]):>9,}{span:>22}{units:>9,}"
    if len(ranked) > DEPARTMENTS:
        yield f"and {len(ranked) - DEPARTMENTS} smaller ones"


def _visit(events: pa.Table, products: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The last visit of a readable length that ended with an order."""
    told = events.filter(pc.is_in(events["type"], pa.array(DID)))
    lengths = _counts(told["session_id"])
    bought = told.filter(pc.equal(told["type"], "purchase_completed"))["session_id"].to_pylist()
    readable = [visit for visit in bought if 4 <= lengths[visit] <= STEPS]
    if not readable:
        return
    steps = told.filter(pc.equal(told["session_id"], readable[-1])).to_pylist()
    one = steps[-1]
    who = "A known shopper" if one["user_id"] else "A stranger"
    yield f"{who}, {one['device'] or 'device unknown'}, {one['country'] or 'country unknown'}, one visit"
    for step in steps:
        what = f'"{step["query"]}"' if step["query"] else priced(products.get(step["item_id"], {}))
        yield f"{step['event_ts']:%H:%M:%S}  {DID[step['type']]:<16}{what}"


def priced(product: dict[str, Any]) -> str:
    """Price and name of a row of the catalogue, for example "   12.90  Kelmora rustic pan"."""
    price = f"{product['price']:>8,.2f}" if product.get("price") else " " * 8
    return f"{price}  {_cut(product.get('title') or '(not in the catalogue)', TITLE)}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def main(
    data: Annotated[
        str | None, typer.Option(help="A simulated shop, made on the spot; default: the active shop's data.")
    ] = None,
) -> None:
    """Look at a shop: departments, prices, best sellers and one visit."""
    if data is not None:
        constants = load("simulate", Simulate)
        size = constants.size_of(named_shop(data).name)
        run = simulate(constants, size, np.random.default_rng(constants.seed))
        name, events, items = data, run.events, run.items
    else:
        name = shop().name
        events = pq.read_table(existing(EVENTS, "ingest", *SCHEMA.names))
        items = pq.read_table(existing(ITEMS, "ingest", *ITEM_SCHEMA.names))
    for line in view(name, events, items):
        print(f"  {line}".rstrip())
