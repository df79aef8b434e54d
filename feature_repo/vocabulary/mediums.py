"""How a shopper came: mediums of traffic sources as channels."""

from typing import Any

from feature_repo.vocabulary.naming import NOTHING

CHANNELS = {
    **dict.fromkeys(("cpc", "ppc", "paidsearch", "paid_search"), "paid search"),
    **dict.fromkeys(("display", "banner", "cpm"), "display"),
    **dict.fromkeys(("social", "social-network", "social-media", "sm"), "social"),
    **dict.fromkeys(("affiliate", "affiliates"), "affiliates"),
    **dict.fromkeys(("email", "e-mail", "newsletter"), "email"),
    "(none)": "direct",
    "organic": "organic search",
    "referral": "referral",
    "push": "push",
}
"""Medium of the traffic source -> channel."""


def channel_of(medium: Any) -> str | None:
    """The channel that a medium means; a word that is not known is (other)."""
    word = str(medium or "").strip().lower()
    return CHANNELS.get(word, None if word in NOTHING else "(other)")
