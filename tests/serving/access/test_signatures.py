"""A request id says which list it is of, and nobody can make one up, bend it, borrow it or keep it."""

from __future__ import annotations

import secrets
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from feature_repo.clock import DAY_US, SECOND_US
from feature_repo.events import SURFACES, is_id
from serving.access.signatures import KEY, Signatures, Signing, Ticket, looks_signed
from serving.payloads.payload import list_of, ours

RULES = Signing(lives_s=3600, mail_lives_s=7 * 86_400)
NOW = 20_000 * DAY_US + DAY_US // 2
ITEMS = [f"item-{n}" for n in range(12)]
SIGNS = Signatures(RULES)
Event = dict[str, object]
LISTS = st.lists(st.text(min_size=1, max_size=40).filter(is_id), min_size=1, max_size=83, unique=True)
IDS = st.text(min_size=1, max_size=40).filter(is_id)


def served(items: list[str] = ITEMS, session: str | None = "s1", user: str | None = "ann") -> str:
    return SIGNS.sign(NOW, "challenger", "pdp_fbt", session, user, items)


def click(request_id: str, item: str = "item-3", session: str = "s1", user: str | None = None) -> Event:
    told = {"request_id": request_id, "item_id": item, "session_id": session, "user_id": user}
    return {"type": "click", **told}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(IDS, min_size=1, max_size=83, unique=True),
    IDS,
    st.none() | IDS,
    st.sampled_from(SURFACES),
    st.data(),
)
def test_what_was_served_is_told_to_whom_it_was_served(
    items: list[str], session: str, user: str | None, surface: str, data: st.DataObject
) -> None:
    request_id = SIGNS.sign(NOW, "champion", surface, session, user, items)
    assert is_id(request_id) and request_id.replace("-", "").replace("_", "").isalnum()
    slot = data.draw(st.integers(0, len(items) - 1))
    told = SIGNS.judge(click(request_id, items[slot], session), NOW + 1)
    assert isinstance(told, Ticket) and (told.arm, told.surface) == ("champion", surface)
    assert told.slot == slot or items.index(items[slot]) > told.slot  # type: ignore[operator]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300) | st.binary(max_size=200).map(lambda raw: raw.hex()))
def test_no_other_text_is_one(text: str) -> None:
    assert SIGNS.judge(click(text), NOW) in ("unsigned", "forged")


@given(st.integers(0, 66), st.integers(1, 63))
def test_one_that_was_bent_is_none(at: int, by: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    request_id = served()
    assert len(request_id) == 67
    other = alphabet[(alphabet.index(request_id[at]) + by) % 64]
    bent = request_id[:at] + other + request_id[at + 1 :]
    assert SIGNS.judge(click(bent), NOW) in ("forged", "unsigned")


@pytest.mark.parametrize(
    ("event", "after_s", "why"),
    [
        (click(served()), 3601, "late"),
        (click(served(), session="s2"), 0, "foreign"),
        (click(served(), session="s2", user="bob"), 0, "foreign"),
        (click(served(), "item-99"), 0, "not_shown"),
        (click("0123456789abcdef0123456789abcdef"), 0, "unsigned"),  # as they were before
        (click("the shop's own listing"), 0, "unsigned"),
        (click(Signatures(RULES).sign(NOW, "champion", "pdp_fbt", "s1", None, ITEMS)), 0, "forged"),
    ],
)
def test_what_counts_for_nothing_says_why(event: dict[str, object], after_s: int, why: str) -> None:
    assert SIGNS.judge(event, NOW + after_s * SECOND_US) == why


def test_a_shopper_may_click_in_another_visit_and_a_list_to_nobody_is_anybodys() -> None:
    assert isinstance(SIGNS.judge(click(served(), session="s9", user="ann"), NOW), Ticket)
    assert isinstance(SIGNS.judge(click(served(session=None, user=None), session="s9"), NOW), Ticket)


def test_what_is_sent_by_mail_may_be_opened_days_later() -> None:
    mail = SIGNS.sign(NOW, "champion", "email_abandoned_cart", None, "ann", ITEMS)
    assert isinstance(SIGNS.judge(click(mail, user="ann"), NOW + 6 * DAY_US), Ticket)
    assert SIGNS.judge(click(mail, user="ann"), NOW + 8 * DAY_US) == "late"


def test_a_list_too_long_to_be_written_down_is_told_without_slots() -> None:
    long = served([f"item-{n}" for n in range(500)])
    told = SIGNS.judge(click(long, "item-499"), NOW)
    assert len(long) < 40 and isinstance(told, Ticket) and told.slot is None
    assert len(served([f"item-{n}" for n in range(83)])) == 256


def test_workers_share_keys_that_change_every_day_and_go_when_nothing_needs_them(redis_url: str) -> None:
    one, other = Signatures(RULES), Signatures(RULES)
    with Redis.from_url(redis_url) as redis:
        one.follow(redis, NOW)
        other.follow(redis, NOW)
        request_id = one.sign(NOW, "champion", "pdp_fbt", "s1", None, ITEMS)
        assert isinstance(other.judge(click(request_id), NOW + 1), Ticket)
        midnight = (NOW // DAY_US + 1) * DAY_US
        late = one.sign(midnight - 1, "champion", "pdp_fbt", "s1", None, ITEMS)
        other.follow(redis, midnight + SECOND_US)
        assert isinstance(other.judge(click(late), midnight + SECOND_US), Ticket)
        keys = redis.keys(KEY + "*")
        assert len(keys) == 3 and len({redis.get(key) for key in keys}) == 3
        assert all(7 * 86_400 < redis.ttl(key) <= 11 * 86_400 for key in keys)
        redis.delete(*keys)
        other.follow(redis, midnight + SECOND_US)
        assert other.judge(click(late), midnight + SECOND_US) == "forged"


def test_an_id_of_ours_is_told_from_the_names_that_others_give_their_lists() -> None:
    signed = served()
    assert list_of("Bought together", signed)["request_id"] == signed == ours(signed)
    for other in (str(uuid.uuid4()), "homepage-hero", "81f4", secrets.token_hex(32)):
        assert not looks_signed(other) and ours(other) is None
