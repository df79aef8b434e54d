"""What the simulated shop sells: SKUs with words, prices, launch dates and the latents that drive demand.

The latents (style, price level, popularity, appeal, trend) are what shoppers respond to. The words of
a title are drawn from the same latents: a model that reads titles knows at launch what clicks show later.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from feature_repo.events import ITEM_SCHEMA
from pipelines.simulate.departments import DEPARTMENTS, STYLES

BRANDS_PER_DEPARTMENT = 8
BRAND_DIMENSIONS = 4
MAX_ACCESSORIES = 4
LAST_PIECES, PREMIUM = 10, 100.0  # on hand at most, EUR at least: tags that a merchandiser would set
_ONSETS = ("Nor", "Vel", "Mar", "Hol", "Tas", "Bren", "Kel", "Lun", "Os", "Pax", "Rav", "Sol", "Tor", "Ul")
_CODAS = ("dvik", "mora", "ton", "lis", "berg", "ano", "field", "quist", "ware", "by", "stad", "ley")


@dataclass(frozen=True)
class Supply:
    """How the assortment is spread; section `simulate.supply` of params.yaml."""

    popularity_exponent: float
    price_sigma: float
    launched_share: float
    sold_out_share: float


@dataclass(frozen=True)
class Assortment:
    """N items in L leaves. Days are counted from the start of the simulated period, before it is negative."""

    item_ids: np.ndarray  # (N,) str, sorted
    leaf: np.ndarray  # (N,) int
    brand: np.ndarray  # (N,) int
    style: np.ndarray  # (N,) int, index into STYLES
    price: np.ndarray  # (N,) float, EUR
    price_level: np.ndarray  # (N,) float, standard deviations above the leaf's median, in log price
    popularity: np.ndarray  # (N,) float, Zipf weight, sums to 1 within a leaf
    appeal: np.ndarray  # (N,) float, log odds of a click that everyone agrees on
    trend: np.ndarray  # (N,) float, growth of demand in log odds per week
    from_day: np.ndarray  # (N,) float, first day on sale
    until_day: np.ndarray  # (N,) float, day on which it sold out, inf while in stock
    accessories: np.ndarray  # (N, MAX_ACCESSORIES) int, -1 padded
    leaf_items: np.ndarray  # (L, widest leaf) int, -1 padded
    leaf_paths: np.ndarray  # (L,) str
    leaf_weight: np.ndarray  # (L,) float, demand for the leaf, sums to 1
    leaf_trend: np.ndarray  # (L,) float, growth in log demand per week
    complements: np.ndarray  # (L, 3) int, leaves that go with the leaf
    brand_names: np.ndarray  # (B,) str
    brand_vectors: np.ndarray  # (B, BRAND_DIMENSIONS) float

    @property
    def leaf_department(self) -> np.ndarray:
        """(L,) int, the department of each leaf."""
        return np.arange(len(self.leaf_paths)) // len(DEPARTMENTS[0].leaves)

    def on_sale(self, items: np.ndarray, day: np.ndarray | float) -> np.ndarray:
        """Whether each of `items` (..., k) is launched and in stock on `day` (broadcast against it)."""
        return (items >= 0) & (self.from_day[items] <= day) & (day < self.until_day[items])


def make_assortment(
    departments_sold: int, skus: int, days: float, supply: Supply, rng: np.random.Generator
) -> Assortment:
    """An assortment whose launches and sell-outs are spread over `days` days; the same rng, the same shop."""
    departments = DEPARTMENTS[:departments_sold]
    paths = [path for department in departments for path in department.paths()]
    n, leaves, styles = skus, len(paths), len(STYLES)
    leaf = rng.permutation(np.arange(n) % leaves)
    brand_style = rng.integers(styles, size=len(departments) * BRANDS_PER_DEPARTMENT)
    brand = leaf // 6 * BRANDS_PER_DEPARTMENT + rng.integers(BRANDS_PER_DEPARTMENT, size=n)
    style = np.where(rng.random(n) < 0.5, brand_style[brand], rng.integers(styles, size=n))
    medians = np.array([leaf.price for department in departments for leaf in department.leaves])
    taste = np.array([one.name for one in STYLES])[style]
    price_level = rng.normal(0.0, 1.0, n) + 0.8 * (taste == "luxe") - 0.4 * (taste == "playful")
    price = np.round(np.round(medians[leaf] * np.exp(supply.price_sigma * price_level), 1) - 0.01, 2)
    popularity, leaf_items = _zipf_within_leaves(leaf, leaves, supply.popularity_exponent, rng)
    leaf_weight, complements = rng.lognormal(0.0, 0.5, leaves), _complements(leaves)
    return Assortment(
        item_ids=np.array([f"SKU-{i:05d}" for i in range(n)]),
        leaf=leaf,
        brand=brand,
        style=style,
        price=np.maximum(price, 0.99),
        price_level=price_level,
        popularity=popularity,
        appeal=rng.normal(0.0, 0.35, n) + 0.1 * np.log(popularity * n / leaves),
        trend=rng.normal(0.0, 0.08, n),
        from_day=np.where(
            rng.random(n) < supply.launched_share, rng.uniform(0.0, days, n), -rng.uniform(1.0, 900.0, n)
        ),
        until_day=np.where(rng.random(n) < supply.sold_out_share, rng.uniform(days / 2, days, n), np.inf),
        accessories=_link_accessories(leaf, style, popularity, leaf_items, complements, rng),
        leaf_items=leaf_items,
        leaf_paths=np.array(paths),
        leaf_weight=leaf_weight / leaf_weight.sum(),
        leaf_trend=rng.normal(0.0, 0.06, leaves),
        complements=complements,
        brand_names=_brand_names(len(brand_style), rng),
        brand_vectors=rng.normal(0.0, 1.0, (len(brand_style), BRAND_DIMENSIONS)),
    )


def _zipf_within_leaves(
    leaf: np.ndarray, leaves: int, exponent: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Popularity (N,) and the members of each leaf (leaves, widest), -1 padded."""
    popularity = np.empty(len(leaf))
    members = [np.flatnonzero(leaf == row) for row in range(leaves)]
    table = np.full((leaves, max(map(len, members))), -1)
    for row, items in enumerate(members):
        weights = np.arange(1, len(items) + 1, dtype=float) ** -exponent
        popularity[items] = rng.permutation(weights / weights.sum())
        table[row, : len(items)] = items
    return popularity, table


def _complements(leaves: int) -> np.ndarray:
    """(leaves, 3): the department's two next leaves, and the same place in the neighbouring department."""
    leaf = np.arange(leaves)
    department, place = leaf // 6, leaf % 6
    neighbour = np.where((department ^ 1) < leaves // 6, department ^ 1, department)
    nexts = [department * 6 + (place + ahead) % 6 for ahead in (1, 2)]
    return np.stack([*nexts, neighbour * 6 + place], 1)


def _link_accessories(
    leaf: np.ndarray,
    style: np.ndarray,
    popularity: np.ndarray,
    leaf_items: np.ndarray,
    complements: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """(N, MAX_ACCESSORIES): 0 to 4 popular items of complementary leaves, mostly of the item's style."""
    links = np.full((len(leaf), MAX_ACCESSORIES), -1)
    for row in range(len(leaf_items)):
        items = leaf_items[row][leaf_items[row] >= 0]
        pool = leaf_items[complements[row]].ravel()
        pool = np.setdiff1d(pool[pool >= 0], items)
        score = np.log(popularity[pool]) + 2.5 * (style[pool] == style[items][:, None])  # (items, pool)
        score = score + rng.gumbel(size=score.shape)
        wanted = rng.integers(0, MAX_ACCESSORIES + 1, len(items))
        best = pool[np.argsort(-score, axis=1)[:, :MAX_ACCESSORIES]]
        links[items, : best.shape[1]] = np.where(np.arange(best.shape[1]) < wanted[:, None], best, -1)
    return links


def _brand_names(count: int, rng: np.random.Generator) -> np.ndarray:
    pairs = rng.permutation(len(_ONSETS) * len(_CODAS))[:count]
    return np.array([_ONSETS[pair // len(_CODAS)] + _CODAS[pair % len(_CODAS)] for pair in pairs])


def catalogue_table(shop: Assortment, start: datetime, end: datetime, rng: np.random.Generator) -> pa.Table:
    """The catalogue as exported at `end`, in feature_repo.events.ITEM_SCHEMA, sorted by item_id.

    A title reads "Kelmora rustic cast iron frying pan, terracotta, 28 cm".
    """
    n = len(shop.item_ids)
    draws = rng.integers(0, 1 << 30, (n, 5))
    words = [_words(shop, item, draws[item]) for item in range(n)]
    days = (end - start) / timedelta(days=1)
    sold_out = shop.until_day < days
    stock = np.where(sold_out, 0, 1 + rng.negative_binomial(2, 0.05, n))
    columns = {
        "item_id": shop.item_ids,
        "title": [title for title, _ in words],
        "description": [description for _, description in words],
        "category_path": shop.leaf_paths[shop.leaf],
        "brand": shop.brand_names[shop.brand],
        "price": shop.price,
        "currency": np.full(n, "EUR"),
        "margin": np.round(rng.beta(6, 10, n), 3),
        "stock": stock.astype(np.int32),
        "image_path": [f"/picture/{item}.svg" for item in shop.item_ids],
        "accessories": [[str(i) for i in shop.item_ids[row[row >= 0]]] for row in shop.accessories],
        "available_from": [start + timedelta(days=float(np.floor(day))) for day in shop.from_day],
        "gtin": [_gtin(item) for item in range(n)],
        "url": [f"/product/{item}" for item in shop.item_ids],
        "tags": [_tags(*one) for one in zip(shop.from_day > 0, stock, shop.price >= PREMIUM, strict=True)],
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in ITEM_SCHEMA], schema=ITEM_SCHEMA)


def _tags(launched: bool, stock: int, premium: bool) -> list[str] | None:
    """What a merchandiser would have written; made of what the catalogue holds: nothing else moves."""
    told = {"new": launched, "last pieces": 0 < stock <= LAST_PIECES, "premium": premium}
    return [tag for tag, holds in told.items() if holds] or None


def _words(shop: Assortment, item: int, draw: np.ndarray) -> tuple[str, str]:
    leaf = int(shop.leaf[item])
    department, style = DEPARTMENTS[leaf // 6], STYLES[shop.style[item]]
    nouns = department.leaves[leaf % 6].nouns
    words = (style.adjectives, style.colours, nouns, department.materials, department.sizes)
    adjective, colour, noun, material, size = (of[d % len(of)] for of, d in zip(words, draw, strict=True))
    partner = shop.leaf_paths[shop.complements[leaf, 0]].rsplit("/", 1)[-1].lower()
    title = f"{shop.brand_names[shop.brand[item]]} {adjective} {material} {noun}, {colour}, {size}"
    return title, f"A {adjective} {noun} of {material} in {colour}. Goes well with our {partner}."


def _gtin(item: int) -> str:
    """A GTIN-13 of the restricted range 20..29 with its check digit (GS1 General Specifications, 7.9).

    >>> _gtin(7)
    '2000000000077'
    """
    body = f"20{item:010d}"
    check = -sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(body)) % 10
    return f"{body}{check}"
