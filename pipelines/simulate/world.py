"""The simulated world: who wants what, and with what probability it is clicked, carted and bought.

One formula is behind the exported history, the live shoppers and the best list that tests compare with:

    affinity(shopper, item | context) = appeal + trend + taste + intent + link + freshness      (log odds)
    P(click | shown at position p)    = examination(p) * ceiling * sigmoid(affinity + offset of the surface)
    P(cart | viewed)                  = sigmoid(affinity + cart offset)

The product of examination and attraction is the position-based model (Craswell et al., WSDM 2008).
"""

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from scipy.special import expit

from feature_repo.errors import DataError
from feature_repo.places import existing
from pipelines.simulate.assortment import Assortment
from pipelines.simulate.departments import STYLES

ADDRESSED = ("email", "push")  # channels that need an address

Rows = np.ndarray | int  # rows of a latent table, one or many


@dataclass(frozen=True)
class Taste:
    """Log odds of what moves a shopper; section `simulate.taste` of params.yaml."""

    style: float
    brand: float
    price: float
    leaf: float
    related: float
    department: float
    link: float
    same_brand: float
    fresh: float
    fresh_days: float
    cart_offset: float
    order_offset: float
    position_decay: float
    ceiling: float
    offsets: dict[str, float]  # of a click on an examined slot, by surface; unknown ones count as search


@dataclass(frozen=True)
class Shoppers:
    """Latent tastes of P people: the first `len(user_ids)` are known, the rest visit once, anonymously."""

    user_ids: np.ndarray  # (K,) str
    activity: np.ndarray  # (K,) float, relative rate of visits
    joined_day: np.ndarray  # (K,) float, not seen before that day
    style: np.ndarray  # (P, styles) float, mixture, sums to 1
    department: np.ndarray  # (P, departments) float, mixture, sums to 1
    brand: np.ndarray  # (P, BRAND_DIMENSIONS) float
    budget: np.ndarray  # (P,) float, preferred price level
    device: np.ndarray  # (P,) str
    country: np.ndarray  # (P,) str
    consent: np.ndarray  # (P,) bool

    def user_id(self, shopper: int) -> str | None:
        """The id of a known shopper, None for an anonymous one."""
        return str(self.user_ids[shopper]) if shopper < len(self.user_ids) else None


@dataclass(frozen=True)
class Population:
    """Who comes to the shop; section `simulate.population` of params.yaml."""

    growth: float
    resume_share: float
    sessions_per_known: float
    anonymous_share: float
    consent_share: float
    devices: dict[str, float]
    countries: dict[str, float]
    channels: dict[str, float]


def draw_names(shares: dict[str, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) names drawn with the given shares, which are brought to sum to 1."""
    weights = np.array(list(shares.values()))
    return rng.choice(np.array(list(shares)), size=n, p=weights / weights.sum())


def make_shoppers(
    sessions: int, shop: Assortment, days: float, who: Population, rng: np.random.Generator
) -> Shoppers:
    """People for `sessions` visits; most have one style, two or three departments, and a price level."""
    anonymous = round(sessions * who.anonymous_share)
    known = max(1, round((sessions - anonymous) / who.sessions_per_known))
    people = known + anonymous
    joined = np.where(rng.random(known) < 0.35, 0.0, rng.uniform(0.0, days, known))
    departments = int(shop.leaf_department[-1]) + 1
    return Shoppers(
        user_ids=np.array([f"U{i:06d}" for i in range(known)]),
        activity=np.minimum(rng.pareto(1.6, known) + 0.2, 20.0),
        joined_day=joined,
        style=rng.dirichlet(np.full(len(STYLES), 0.2), people),
        department=rng.dirichlet(np.full(departments, 0.25), people),
        brand=rng.normal(0.0, 1.0, (people, shop.brand_vectors.shape[1])),
        budget=rng.normal(0.0, 0.9, people),
        device=draw_names(who.devices, people, rng),
        country=draw_names(who.countries, people, rng),
        consent=rng.random(people) < who.consent_share,
    )


@dataclass(frozen=True)
class Context:
    """What a shopper is after at one moment; arrays hold one value per shopper, scalars hold for all.

    `leaf` and `style` are the session's intent (-1: none, long-term taste stands in for it), and `focus` is
    the item looked at last (-1: none). `day` counts from the start of the period.
    """

    surface: str = "homepage_hero"
    leaf: Rows = -1
    style: Rows = -1
    focus: Rows = -1
    day: np.ndarray | float = 0.0


@dataclass(frozen=True)
class World:
    """The assortment, the people, and the law that joins them."""

    shop: Assortment
    shoppers: Shoppers
    taste: Taste
    population: Population
    start: datetime  # day 0 of every `day`

    def day(self, now: datetime) -> float:
        """Days from the start of the period to `now`, negative before it."""
        return (now - self.start) / timedelta(days=1)

    @cached_property
    def row(self) -> dict[str, int]:
        """Row of an item id in the assortment."""
        return {str(item): row for row, item in enumerate(self.shop.item_ids)}

    def examination(self, position: np.ndarray | int) -> np.ndarray:
        """P(the slot is looked at) for 1-based `position`: position ** -position_decay."""
        return np.asarray(position, dtype=float) ** -self.taste.position_decay

    def affinity(self, shopper: Rows, items: np.ndarray, context: Context) -> np.ndarray:
        """Log odds (..., k) for `items` (..., k), one shopper per leading index; see the module's formula."""
        shop, people, taste = self.shop, self.shoppers, self.taste
        who = np.asarray(shopper)
        leaf, style, focus, day = (
            np.asarray(value)[..., None]
            for value in (context.leaf, context.style, context.focus, context.day)
        )
        item_leaf, item_style, brand = shop.leaf[items], shop.style[items], shop.brand[items]
        department = shop.leaf_department[item_leaf]
        likes_department = people.department[who[..., None], department]
        likes_style = np.where(style >= 0, item_style == style, people.style[who[..., None], item_style])
        wants_leaf = np.where(leaf >= 0, item_leaf == leaf, likes_department)
        goes_with = (leaf >= 0) & (shop.complements[leaf] == item_leaf[..., None]).any(-1)
        brand_match = (shop.brand_vectors[brand] * people.brand[who][..., None, :]).sum(-1) / 2
        too_dear = np.minimum((shop.price_level[items] - people.budget[who][..., None]) ** 2, 4.0)
        linked = (focus >= 0) & (shop.accessories[focus] == np.asarray(items)[..., None]).any(-1)
        same_brand = (focus >= 0) & (shop.brand[focus] == brand)
        age = day - shop.from_day[items]
        fresh = (shop.from_day[items] >= 0) * np.exp(-np.maximum(age, 0.0) / taste.fresh_days)
        return (
            shop.appeal[items]
            + shop.trend[items] * day / 7
            + taste.department * likes_department
            + taste.style * likes_style
            + taste.leaf * wants_leaf
            + taste.related * goes_with
            + taste.brand * brand_match
            - taste.price * too_dear
            + taste.link * linked
            + taste.same_brand * same_brand
            + taste.fresh * fresh
        )

    def click_probability(self, shopper: Rows, items: np.ndarray, context: Context) -> np.ndarray:
        """P(click | examined), shaped as `items` (..., k); 0 for padding (-1)."""
        offsets = self.taste.offsets
        logit = self.affinity(shopper, items, context) + offsets.get(context.surface, offsets["search"])
        return np.where(np.asarray(items) >= 0, self.taste.ceiling * expit(logit), 0.0)

    def cart_probability(self, shopper: Rows, items: np.ndarray, context: Context) -> np.ndarray:
        """P(added to the cart | viewed), shaped as `items` (..., k)."""
        return expit(self.affinity(shopper, items, context) + self.taste.cart_offset)

    def order_probability(self, shopper: Rows, items: np.ndarray, context: Context) -> np.ndarray:
        """P(the cart is ordered | its last item is this one), shaped as `items` (..., k)."""
        return expit(0.5 * self.affinity(shopper, items, context) + self.taste.order_offset)

    def intents(
        self, shopper: np.ndarray, day: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The leaf (n,) and the style (n,) that each of `shopper` (n,) comes for on `day` (n,)."""
        shop, people = self.shop, self.shoppers
        liking = people.department[shopper][:, shop.leaf_department] + 1e-3  # (n, L)
        demand = np.log(liking * shop.leaf_weight) + shop.leaf_trend * day[:, None] / 7
        leaf = (demand + rng.gumbel(size=demand.shape)).argmax(1)
        style = (people.style[shopper].cumsum(1) > rng.random((len(shopper), 1))).argmax(1)
        return leaf, style

    def channels(self, shopper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) how each of `shopper` (n,) came; nobody can write to a shopper without an address."""
        channel = draw_names(self.population.channels, len(shopper), rng)
        stranger = shopper >= len(self.shoppers.user_ids)
        return np.where(stranger & np.isin(channel, ADDRESSED), "organic search", channel)

    def true_best_list(self, shopper: int, context: Context, n: int) -> list[str]:
        """Ids of the `n` items on sale likeliest to be clicked, best first; the focus is left out."""
        items = np.arange(len(self.shop.item_ids))
        chance = self.click_probability(shopper, items, context)
        chance[~self.shop.on_sale(items, context.day) | (items == context.focus)] = -1.0
        best = np.argsort(-chance, kind="stable")[:n]
        return [str(item) for item in self.shop.item_ids[best[chance[best] >= 0]]]

    def save(self, path: Path) -> None:
        """Write all latents to one .npz; the same world gives the same bytes."""
        arrays = {f"shop_{f.name}": getattr(self.shop, f.name) for f in fields(Assortment)}
        arrays |= {f"shoppers_{f.name}": getattr(self.shoppers, f.name) for f in fields(Shoppers)}
        parts = {"taste": asdict(self.taste), "population": asdict(self.population)}
        law = json.dumps(parts | {"start": self.start.isoformat()})
        np.savez_compressed(path, law=np.array(law), **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises DataError when it is missing or of another version."""
        with np.load(existing(path, "simulate"), allow_pickle=False) as arrays:
            shop = {f.name: f"shop_{f.name}" for f in fields(Assortment)}
            people = {f.name: f"shoppers_{f.name}" for f in fields(Shoppers)}
            if missing := sorted({"law", *shop.values(), *people.values()} - set(arrays)):
                problem = f"latents {', '.join(missing)} are missing"
                raise DataError(path, problem, next_step="run `endcap simulate`")
            law = json.loads(str(arrays["law"]))
            return cls(
                Assortment(**{name: arrays[key] for name, key in shop.items()}),
                Shoppers(**{name: arrays[key] for name, key in people.items()}),
                Taste(**law["taste"]),
                Population(**law["population"]),
                datetime.fromisoformat(law["start"]),
            )
