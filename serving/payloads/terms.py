"""Section `compat` of params.yaml: which doors are open, and the words that a shop chose by itself."""

from dataclasses import dataclass

from feature_repo.errors import ParamsError
from feature_repo.events import SURFACES, TYPES

SYSTEMS = (
    *("ga4", "gtm", "segment", "rudderstack", "snowplow", "shopify"),
    *("metarank", "gorse", "algolia", "google", "ubi"),
)
ITEM_KEYS = {"segment": ("product_id", "sku"), "shopify": ("handle", "product_id", "variant_id", "sku")}


@dataclass(frozen=True)
class Lists:
    """The surface that a list of another system is asked of, where the client does not name one of ours."""

    for_user: str
    for_visit: str
    beside_items: str
    ranked: str


@dataclass(frozen=True)
class Terms:
    """What a shop agreed on with its other systems. Raises ParamsError for a word that is not allowed."""

    enabled: tuple[str, ...]  # doors that are open; the others answer 404
    max_events: int  # of ours, that one body may hold
    segment_item: str  # which of Segment's two ids of a product is ours
    shopify_item: str
    consent_category: (
        str  # of the consent manager, in Segment's and RudderStack's calls: who denies it refuses
    )
    words: dict[str, str]  # what Gorse, Metarank and UBI leave to the shop: its word -> our type
    lists: Lists

    def __post_init__(self) -> None:
        allowed = {
            "enabled": (self.enabled, SYSTEMS),
            "segment_item": ((self.segment_item,), ITEM_KEYS["segment"]),
            "shopify_item": ((self.shopify_item,), ITEM_KEYS["shopify"]),
            "words": (tuple(self.words.values()), TYPES),
            "lists": (tuple(vars(self.lists).values()), SURFACES),
        }
        for name, (values, known) in allowed.items():
            for value in values:
                if value not in known:
                    raise ParamsError(f"compat.{name}: {value!r} is unknown; allowed: {', '.join(known)}")
        if self.max_events < 1:
            raise ParamsError(f"compat.max_events: {self.max_events}; allowed: 1 or more")
