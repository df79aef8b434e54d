"""What a shop's data has and has not: what is absent is told once, and is no failure of any stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from feature_repo.events import PRODUCT_TYPES
from feature_repo.offline.duck import connect
from feature_repo.places import EVENTS, IMPRESSIONS, ITEMS, existing

OF_ITEMS = ("price", "category_path", "margin", "stock", "brand")
WITHOUT = {
    "impressions": "nothing is learned from what was shown",
    "views": "popularity is counted over carts and purchases",
    "carts": "nothing is learned from carts",
    "purchases": "nothing is learned from purchases",
    "prices": "lists know nothing of prices",
    "categories": "lists are not varied by category",
    "known shoppers": "every visit starts from nothing",
    "returning shoppers": "nothing is learned from one visit for the next",
    "visits of two items": "there is nothing to learn an order from: bestsellers serve",
}
"""What may be absent, and what follows."""


@dataclass(frozen=True)
class Profile:
    """Counts over data/raw.

    types: events by type, impressions among them · known: share of the items that have the field ·
    visits with contacts, and those `of_two` items or more · shoppers with an id, and those that came twice
    """

    types: Mapping[str, int]
    items: int
    known: Mapping[str, float]
    visits: int
    of_two: int
    shoppers: int
    returning: int

    @property
    def lacks(self) -> tuple[str, ...]:
        """Keys of WITHOUT that the shop does not have, in their order.

        >>> Profile({"product_viewed": 9}, 3, {"price": 1.0}, 4, 2, 0, 0).lacks[:4]
        ('impressions', 'carts', 'purchases', 'categories')
        """
        there = {
            "impressions": self.types.get("impression", 0),
            **dict(zip(("views", "carts", "purchases"), map(self._count, PRODUCT_TYPES), strict=True)),
            "prices": self.known.get("price", 0.0),
            "categories": self.known.get("category_path", 0.0),
            "known shoppers": self.shoppers,
            "returning shoppers": self.returning,
            "visits of two items": self.of_two,
        }
        return tuple(name for name in WITHOUT if not there[name])

    def _count(self, kind: str) -> int:
        return self.types.get(kind, 0)

    def in_words(self) -> list[str]:
        """One line per thing that is absent."""
        told = [name for name in self.lacks if name != "returning shoppers" or self.shoppers]
        return [f"no {name}: {WITHOUT[name]}" for name in told]


def profile(raw: Path) -> Profile:
    """Of the three files in the folder `raw`. Raises DataError where one is missing."""
    shown, items = (existing(raw / name.name, "ingest") for name in (IMPRESSIONS, ITEMS))
    events = existing(raw / EVENTS.name, "ingest", "type", "item_id", "session_id", "user_id", "consent")
    product = ", ".join(f"'{kind}'" for kind in PRODUCT_TYPES)
    with connect() as db:
        db.execute(f"CREATE VIEW events AS FROM read_parquet({str(events)!r})")
        types = dict(db.execute("SELECT type, count(*) FROM events GROUP BY type ORDER BY type").fetchall())
        (impressions,) = db.execute(f"SELECT count(*) FROM read_parquet({str(shown)!r})").fetchone() or (0,)
        names = [name for name in OF_ITEMS if name in pq.read_schema(items).names]
        shares = ", ".join(f"coalesce(avg(({name} IS NOT NULL)::INT), 0)" for name in names)
        count, *known = db.execute(f"SELECT count(*), {shares} FROM read_parquet({str(items)!r})").fetchall()[
            0
        ]
        visits, of_two = db.execute(
            f"""SELECT count(*), count(*) FILTER (items > 1) FROM (
                SELECT count(DISTINCT item_id) AS items FROM events WHERE type IN ({product})
                GROUP BY session_id)"""
        ).fetchall()[0]
        shoppers, returning = db.execute(
            f"""SELECT count(*), count(*) FILTER (visits > 1) FROM (
                SELECT count(DISTINCT session_id) AS visits FROM events
                WHERE consent AND user_id IS NOT NULL AND type IN ({product}) GROUP BY user_id)"""
        ).fetchall()[0]
    types |= {"impression": impressions} if impressions else {}
    return Profile(types, count, dict(zip(names, known, strict=True)), visits, of_two, shoppers, returning)
