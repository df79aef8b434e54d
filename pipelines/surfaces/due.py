"""Who is due an e-mail, by what is stored of a shopper and by time alone. Pure logic.

    email_post_purchase       bought `order_after_h` ago
    email_abandoned_cart      left a cart behind `cart_after_h` ago, and has bought nothing since
    email_browse_abandonment  looked at products `browse_after_h` ago, put none into a cart

Each is due for `window_h`, so that a job that runs as often misses nobody and writes to nobody twice. Who
came back in between is due by the later visit alone; a shopper gets one e-mail of a run, the first above.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from feature_repo.clock import HOUR_US
from feature_repo.errors import ParamsError
from feature_repo.features.stored import SESSION_CONTEXT


@dataclass(frozen=True)
class EmailParams:
    """Section `email` of params.yaml; hours since the last contact, or since the purchase."""

    order_after_h: float
    cart_after_h: float
    browse_after_h: float
    window_h: float  # between two runs
    limit: int  # products of an e-mail

    def __post_init__(self) -> None:
        kept = 24.0 * SESSION_CONTEXT.max_age_days
        for name in ("cart_after_h", "browse_after_h"):
            if (until := getattr(self, name) + self.window_h) > kept:
                raise ParamsError(
                    f"email.{name}: with window_h it reaches {until:g} h back; allowed: at most {kept:g}, as "
                    "long as the row of a visit is kept. Next: lower one of the two"
                )


class Due(NamedTuple):
    """An e-mail: its surface, the products that it starts from, and when (us) they were left."""

    surface: str
    items: tuple[str, ...]
    since: int


def due(
    now: int, user_id: str, user: Mapping[str, Any], visit: Mapping[str, Any] | None, params: EmailParams
) -> Due | None:
    """What `user_id` is due at `now` (us): `user` and `visit`, the newest one, as stored; None for nothing.

    A visit that is another's, or that holds events without consent, calls for nothing.
    """

    def within(ts: int, after_h: float) -> bool:
        return 0 <= now - ts - after_h * HOUR_US < params.window_h * HOUR_US

    bought = dict(zip(user["bought_items"], user["bought_ts"], strict=True))
    newest = max(bought.values(), default=0)
    if within(newest, params.order_after_h):
        order = tuple(item for item, ts in bought.items() if newest - ts < HOUR_US)
        return Due("email_post_purchase", order, newest)
    mine = visit if visit and visit["owner"] == user_id and not visit["sealed"] else None
    if mine is None or max(newest, *mine["bought_ts"], 0) >= mine["started_ts"]:
        return None
    cart, last = tuple(mine["cart_items"]), mine["last_ts"]
    if cart:
        return Due("email_abandoned_cart", cart, last) if within(last, params.cart_after_h) else None
    seen = tuple(mine["contact_items"])
    if seen and within(last, params.browse_after_h):
        return Due("email_browse_abandonment", seen[-3:], last)
    return None
