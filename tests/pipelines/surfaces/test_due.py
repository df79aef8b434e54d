"""Who is due an e-mail: by stored rows and time alone, once, and never whose visit it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.clock import HOUR_US
from feature_repo.errors import ParamsError
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Event
from pipelines.surfaces.due import EmailParams, due

T = 1_700_000_000_000_000
PARAMS = EmailParams(order_after_h=72, cart_after_h=1, browse_after_h=20, window_h=24, limit=6)


def rows(
    *events: tuple[str, str], user: str = "ann", consent: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of shopper and visit after `events` (type, item), a microsecond apart from T on."""
    known, visit = USER_HISTORY.new(), SESSION_CONTEXT.new()
    for at, (kind, item) in enumerate(events):
        event = Event(T + at, kind, user, "s", item, consent=consent)
        visit = SESSION_CONTEXT.step(visit, event)
        known = USER_HISTORY.step(known, event) if kind in USER_HISTORY.steps else known
    return USER_HISTORY.row(known), SESSION_CONTEXT.row(visit)


def after(hours: float, *events: tuple[str, str], user: str = "ann", consent: bool = True) -> Any:
    found = due(T + int(hours * HOUR_US), "ann", *rows(*events, user=user, consent=consent), PARAMS)
    return found and (found.surface, found.items)


LOOK, CART, BUY = ("product_viewed", "a"), ("add_to_cart", "b"), ("purchase_completed", "b")


def test_what_was_left_decides_which_e_mail_is_due_and_when() -> None:
    assert after(2, LOOK, CART) == ("email_abandoned_cart", ("b",))
    assert after(21, LOOK) == ("email_browse_abandonment", ("a",))
    assert after(80, LOOK, CART, BUY) == ("email_post_purchase", ("b",))
    assert after(0.5, LOOK, CART) is after(26, LOOK, CART) is None
    assert after(2, LOOK) is after(2, LOOK, CART, BUY) is after(100, LOOK, CART, BUY) is None


def test_a_visit_of_another_or_without_consent_calls_for_nothing() -> None:
    assert after(2, LOOK, CART, user="bob") is None
    assert after(2, LOOK, CART, consent=False) is None


def test_what_left_the_cart_again_is_not_abandoned() -> None:
    assert after(2, LOOK, CART, ("remove_from_cart", "b")) is None
    assert after(21, LOOK, CART, ("remove_from_cart", "b")) == ("email_browse_abandonment", ("a", "b"))


@given(start=st.floats(0, 40), events=st.lists(st.sampled_from((LOOK, CART, BUY)), min_size=1, max_size=4))
def test_a_job_that_runs_every_window_writes_to_nobody_twice_of_one_kind(
    start: float, events: list[tuple[str, str]]
) -> None:
    found = [after(start + day * PARAMS.window_h, *events) for day in range(6)]
    surfaces = [one[0] for one in found if one]
    assert len(set(surfaces)) == len(surfaces)


def test_a_wait_longer_than_visits_are_kept_is_refused_by_name() -> None:
    with pytest.raises(ParamsError, match=r"email.browse_after_h: .* allowed: at most 48"):
        replace(PARAMS, browse_after_h=30.0)
