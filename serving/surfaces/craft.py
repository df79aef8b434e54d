"""What a surface is, as section `surfaces` of params.yaml tells it; a release carries it like its quotas.

A surface without a craft (homepage_hero, category_sort) is the blend of section `retrieve`, as the ranker
orders it; so is one that is asked without any product to start from.
"""

from dataclasses import dataclass

from feature_repo.errors import ParamsError

ANCHORED = ("links", "together", "carted", "coviews", "content", "bestsellers")  # start from the products
SHOPPERS = ("shown", "ease", "covisit", "tower", "als", "fresh")  # start from the shopper: stages/retrieve.py
ANCHORS, KINDS, ORDERS = ("page", "cart"), ("other", "same", "any"), ("ranker", "own")
TRUTHS = (
    "next_carted",
    "joined_cart",
    "next_of_kind",
    "back_after_cart",
    "back_after_browse",
    "back_after_order",
)
FILTERS = ("price", "per_kind", "kind")


@dataclass(frozen=True)
class Craft:
    """One surface. A kind is a leaf category; an item whose category is unknown is of a kind of its own."""

    anchors: str  # page: the products of the page; cart: those of the cart and of the page
    quotas: dict[str, int]  # source -> how many it may bring, and what its places weigh in the own order
    order: str  # ranker, or own: where the sources place an item
    kind: str  # against the anchors' kinds: other, same or any
    per_kind: int  # at most so many of one kind in a list; 0 = any number
    price: tuple[float, ...]  # from, to, in prices of the dearest anchor
    relax: tuple[str, ...]  # of FILTERS, those in use, in the order in which they give way
    truth: str  # what is wanted in its evaluation slice: pipelines/protocol/occasions.py
    baseline: str  # the source that alone, under the same filters, it is measured against

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("anchors", self.anchors, ANCHORS),
            ("kind", self.kind, KINDS),
            ("order", self.order, ORDERS),
            ("truth", self.truth, TRUTHS),
            ("baseline", self.baseline, ANCHORED),
            *(("quotas", source, (*ANCHORED, *SHOPPERS)) for source in self.quotas),
            *(("relax", given, FILTERS) for given in self.relax),
        ):
            if value not in allowed:
                raise ParamsError(f"surfaces: {name}: {value!r} is unknown; allowed: {', '.join(allowed)}")
        if len(self.price) != 2 or not 0 <= self.price[0] < self.price[1]:
            raise ParamsError(
                f"surfaces: price: {list(self.price)} is no range; allowed: [from, to], from < to"
            )
        used = sorted(
            ["price", *(["per_kind"] if self.per_kind else []), *(["kind"] if self.kind != "any" else [])]
        )
        if sorted(self.relax) != used:
            raise ParamsError(
                f"surfaces: relax: {list(self.relax)} does not fit; allowed: each of {', '.join(used)} "
                "once, the first to give way first: a filter that never did would leave slots empty"
            )


@dataclass(frozen=True)
class Surfaces:
    """Section `surfaces` of params.yaml: every surface that has a craft."""

    pdp_fbt: Craft
    cart_upsell: Craft
    similar_items: Craft
    email_abandoned_cart: Craft
    email_browse_abandonment: Craft
    email_post_purchase: Craft

    def of(self, surface: str) -> Craft | None:
        """The craft of a surface; None where the blend and the ranker answer."""
        found: Craft | None = getattr(self, surface, None)
        return found
