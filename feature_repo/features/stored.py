"""Every stored feature, declared once. The same line makes the Feast view, the backfill and the stream.

To add a feature, add a line here; give it `column` and it is one of the ranker's 28, of which another then
must go (docs/features.md shows it, from this line to the live answer).

    fold             key         reads                                what it knows
    user_history     user_id     product events                       last contacts and visits, long counts
    session_context  session_id  product events, removes, impressions cart, intent, exposure, whose it is
    item_activity    item_id     product events, clicks, impressions  popularity and exposure by window
"""

from feature_repo.clock import DAY_US, MINUTE_US
from feature_repo.events import HISTORY, PRODUCT_TYPES
from feature_repo.folds.fold import Fold
from feature_repo.folds.owner import Owner, SessionFold
from feature_repo.folds.parts import Cart, Counts, Decayed, First, Last, Recent, Tally, Visits
from feature_repo.folds.rates import ClickRate
from feature_repo.folds.shown import Shown

BOUGHT = 50
CART = 50
SHOWN = 96  # three of the longest listing pages seen on real data
INTENT = {"product_viewed": 1.0, "add_to_cart": 3.0, "purchase_completed": 5.0}
VISIT = (*PRODUCT_TYPES, "remove_from_cart", "impression")

VIEW, CARTED, BUY = {"product_viewed": 1.0}, {"add_to_cart": 1.0}, {"purchase_completed": 1.0}
CLICK, LISTED = {"click": 1.0}, {"impression": 1.0}

USER_HISTORY = Fold(
    name="user_history",
    key="user_id",
    max_age_days=365,
    doc="A shopper over all visits: what the user tower and the loyalty features need.",
    parts=(
        Counts(
            Decayed("views_30d", 30 * DAY_US, VIEW, "product views"),
            Decayed("carts_30d", 30 * DAY_US, CARTED, "adds to cart"),
            Decayed("purchases_180d", 180 * DAY_US, BUY, "items bought"),
        ),
        Visits(PRODUCT_TYPES, days_away="user_days_away"),
        Recent("recent", PRODUCT_TYPES, HISTORY, "touched", kinds=True),
        Recent("bought", BUY, BOUGHT, "bought"),
    ),
)

SESSION_CONTEXT = SessionFold(
    name="session_context",
    key="session_id",
    max_age_days=2,
    doc="One visit: contacts, cart, intent, what the shopper has been shown, and whose visit it is.",
    parts=(
        Tally("views", "product_viewed", "product views of the visit", column="session_views"),
        Tally("carts", "add_to_cart", "adds to cart of the visit"),
        Counts(Decayed("intent", 10 * MINUTE_US, INTENT, "view 1, cart 3, purchase 5")),
        First("started_ts", VISIT, "first event of the visit"),
        Last("last_ts", PRODUCT_TYPES, "newest product contact"),
        Recent("contact", PRODUCT_TYPES, HISTORY, "touched in the visit", kinds=True),
        Cart(CART),
        Recent("bought", BUY, BOUGHT, "bought in the visit"),
        Shown(SHOWN, column="session_pages"),
        Owner(VISIT),
    ),
)

ITEM_ACTIVITY = Fold(
    name="item_activity",
    key="item_id",
    max_age_days=365,
    doc="What all shoppers did with one item.",
    evidence=True,
    parts=(
        Counts(
            Decayed("views_24h", DAY_US, VIEW, "views", column="views_24h"),
            Decayed("views_7d", 7 * DAY_US, VIEW, "views", column="views_7d"),
            Decayed("carts_7d", 7 * DAY_US, CARTED, "adds to cart"),
            Decayed("purchases_30d", 30 * DAY_US, BUY, "purchases"),
            Decayed("clicks_7d", 7 * DAY_US, CLICK, "clicks in lists"),
            Decayed("exposure_7d", 7 * DAY_US, LISTED, "impressions by position ** -0.5", examined=True),
            of_items=True,
        ),
        First("first_ts", (*PRODUCT_TYPES, "click", "impression"), "first event of the item"),
        ClickRate("clicks_7d", "exposure_7d", column="ctr_7d"),
    ),
)
MAX_AGE_US = ITEM_ACTIVITY.max_age_days * DAY_US  # of an item's counts

FOLDS: tuple[Fold, ...] = (USER_HISTORY, SESSION_CONTEXT, ITEM_ACTIVITY)
