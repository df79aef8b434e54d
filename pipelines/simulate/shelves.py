"""What the simulated shop listed before Endcap: bestsellers, category pages and hand-made links.

This is the logging policy of the exported history: plain, and random enough that every item is shown to
somebody.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from pipelines.simulate.world import Context, World

_CHUNK = 4096  # rows of a (rows, widest leaf) score table held at once
EMAILS = ("email_abandoned_cart", "email_browse_abandonment", "email_post_purchase")
SLOTS = {
    "homepage_hero": 12,
    "category_sort": 12,
    "search": 12,
    "pdp_fbt": 4,
    "similar_items": 6,
    "cart_upsell": 4,
    "email_abandoned_cart": 6,
    "email_browse_abandonment": 6,
    "email_post_purchase": 6,
}


@dataclass(frozen=True)
class Visitors:
    """n shoppers at the moment when a page is put together for them."""

    shopper: np.ndarray  # (n,) int
    leaf: np.ndarray  # (n,) int
    style: np.ndarray  # (n,) int
    focus: np.ndarray  # (n,) int, -1: none
    cart: np.ndarray  # (n,) int, item last put into the cart, -1: none
    day: np.ndarray  # (n,) float

    def __len__(self) -> int:
        return len(self.shopper)

    def __getitem__(self, rows: np.ndarray | slice) -> Self:
        return type(self)(*(column[rows] for column in vars(self).values()))

    def context(self, surface: str = "search") -> Context:
        """Their state as the world's law takes it; the surface matters to clicks only."""
        return Context(surface, self.leaf, self.style, self.focus, self.day)


@dataclass(frozen=True)
class Shelves:
    """Fills the lists of a page for many visitors at once."""

    world: World
    refined_share: float  # share of category pages on which the shopper has set the filter to a style

    def fill(self, surface: str, who: Visitors, rng: np.random.Generator) -> np.ndarray:
        """Items (n, SLOTS[surface]) in order of position, -1 padded; all on sale, none twice in a list."""
        shop, slots = self.world.shop, SLOTS[surface]
        if surface == "homepage_hero":
            whim, _ = self.world.intents(who.shopper, who.day, rng)
            tailored = self.draw(whim, who.day, 4, rng)
            items = rng.permuted(np.hstack([self._bestsellers(len(who), slots + 4, rng), tailored]), axis=1)
        elif surface == "category_sort":
            refined = rng.random(len(who)) < self.refined_share
            items = self.draw(who.leaf, who.day, slots, rng, who.style, 3.0 * refined)
        elif surface == "search":
            items = self.draw(who.leaf, who.day, slots, rng, who.style, 2.0)
        elif surface == "similar_items":
            items = self.draw(shop.leaf[who.focus], who.day, slots + 1, rng, shop.style[who.focus], 1.5)
        elif surface in ("pdp_fbt", "cart_upsell"):
            anchor = who.focus if surface == "pdp_fbt" else who.cart
            partner = shop.complements[shop.leaf[anchor], rng.integers(3, size=len(who))]
            items = np.hstack([shop.accessories[anchor], self.draw(partner, who.day, 4, rng)])
            items = np.where(rng.random(items.shape) < 0.75, items, -1)
        else:
            items = self.draw(who.leaf, who.day, slots, rng, who.style, 1.0)
        taken = (items == who.focus[:, None]) | (items == who.cart[:, None])
        return _close_ranks(np.where(taken | ~shop.on_sale(items, who.day[:, None]), -1, items), slots)

    def draw(
        self,
        leaf: np.ndarray,
        day: np.ndarray,
        k: int,
        rng: np.random.Generator,
        style: np.ndarray | None = None,
        boost: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """(n, k) distinct items of each `leaf` (n,) by popularity, in log odds `boost` more for `style`."""
        shop, n = self.world.shop, len(leaf)
        lift = np.broadcast_to(np.asarray(boost, dtype=float), n)
        found = np.full((n, k), -1)
        for first in range(0, n, _CHUNK):
            rows = slice(first, first + _CHUNK)
            pool = shop.leaf_items[leaf[rows]]  # (rows, widest leaf)
            score = np.log(shop.popularity[pool]) + shop.trend[pool] * day[rows, None] / 7
            if style is not None:
                score += lift[rows, None] * (shop.style[pool] == style[rows, None])
            found[rows, : min(k, pool.shape[1])] = self._best(pool, score, day[rows], k, rng)
        return found

    def draw_liked(self, who: Visitors, rng: np.random.Generator) -> np.ndarray:
        """(n,) an item of each visitor's leaf by popularity and taste: where a search engine led them."""
        shop, found = self.world.shop, np.full(len(who), -1)
        for first in range(0, len(who), _CHUNK):
            rows = slice(first, first + _CHUNK)
            part = who[rows]
            pool = shop.leaf_items[part.leaf]
            score = np.log(shop.popularity[pool]) + self.world.affinity(part.shopper, pool, part.context())
            found[rows] = self._best(pool, score, part.day, 1, rng)[:, 0]
        return found

    def _best(
        self, pool: np.ndarray, score: np.ndarray, day: np.ndarray, k: int, rng: np.random.Generator
    ) -> np.ndarray:
        """A draw without replacement, P ~ exp(score): Gumbel top-k (Kool et al., ICML 2019)."""
        score = np.where(self.world.shop.on_sale(pool, day[:, None]), score, -np.inf)
        score = score + rng.gumbel(size=score.shape)
        best = np.argsort(-score, axis=1)[:, :k]
        items = np.take_along_axis(pool, best, axis=1)
        return np.where(np.isfinite(np.take_along_axis(score, best, axis=1)), items, -1)

    def _bestsellers(self, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
        """(n, k) draws with replacement from the popularity of the whole shop."""
        shop = self.world.shop
        total = np.cumsum(shop.popularity * shop.leaf_weight[shop.leaf])
        return np.searchsorted(total / total[-1], rng.random((n, k)), side="right")


def _close_ranks(items: np.ndarray, slots: int) -> np.ndarray:
    """Drop repeats and gaps of `items` (n, k), keep the order, and cut to (n, slots).

    >>> _close_ranks(np.array([[5, -1, 5, 7]]), 3)
    array([[ 5,  7, -1]])
    """
    earlier = np.tril(np.ones((items.shape[1],) * 2, dtype=bool), -1)
    repeats = earlier & (items[:, :, None] == items[:, None, :])  # (n, k, k)
    items = np.where(repeats.any(2), -1, items)
    return np.take_along_axis(items, np.argsort(items < 0, axis=1, kind="stable"), axis=1)[:, :slots]
