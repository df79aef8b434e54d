"""A request is taken as it stands or refused by name; nothing is converted, repaired or guessed."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops.effort import effort

from serving.errors import RequestError
from serving.http.requests import build, parse_instant, parse_object, parse_query, parse_rank, parse_recommend
from serving.types import Context, Request

OK = {"surface": "homepage_hero"}


def refused(body: bytes, max_items: int = 10) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_recommend(body, max_items)
    return caught.value


def test_every_field_arrives() -> None:
    body = {
        "surface": "cart_upsell",
        "user_id": "U1",
        "session_id": "s 1/é",
        "items": ["a"],
        "cart": ["b", "c"],
        "exclude": ["d"],
        "context": {"device": "mobile", "country": "DE", "channel": "direct", "page": "/x", "category": "Y"},
        "limit": 3,
        "debug": True,
        "as_of": "2016-10-17T00:00:00Z",
    }
    assert parse_recommend(orjson.dumps(body), 10) == Request(
        "cart_upsell",
        "U1",
        "s 1/é",
        ("a",),
        ("b", "c"),
        ("d",),
        Context("mobile", "DE", "direct", "/x", "Y"),
        3,
        True,
        1_476_662_400_000_000,
    )


def test_null_means_absent_everywhere() -> None:
    names = ("user_id", "session_id", "items", "cart", "exclude", "context", "limit", "debug", "as_of")
    assert build({**OK, **dict.fromkeys(names)}, 10) == build(OK, 10) == Request("homepage_hero")
    assert build({**OK, "context": {"device": None}}, 10).context == Context()


@pytest.mark.parametrize("limit", [True, 1.5, 1.0, 0, -1, 101, 10**9, 10**30, "12", [12], {}])
def test_a_limit_that_is_no_whole_number_from_1_to_100_is_refused(limit: object) -> None:
    with pytest.raises(RequestError) as caught:
        build({**OK, "limit": limit}, 10)
    assert (caught.value.field, caught.value.status) == ("limit", 422)
    assert caught.value.allowed == "a whole number from 1 to 100"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("surface", None, "surface"),
        ("surface", "homepage", "surface"),
        ("surface", ["homepage_hero"], "surface"),
        ("surface", {"a": 1}, "surface"),
        ("user_id", "", "user_id"),
        ("user_id", 7, "user_id"),
        ("user_id", "a" * 257, "user_id"),
        ("session_id", "a\nb", "session_id"),
        ("session_id", "a\x9f", "session_id"),
        ("items", "a", "items"),
        ("items", {"0": "a"}, "items"),
        ("items", ["a"] * 11, "items"),
        ("cart", ["a", 3], "cart[1]"),
        ("cart", [["a"]], "cart[0]"),
        ("exclude", ["\x00"], "exclude[0]"),
        ("context", [], "context"),
        ("context", {"device": 3}, "context.device"),
        ("context", {"os": "mac"}, "context.os"),
        ("debug", 1, "debug"),
        ("debug", "true", "debug"),
        ("as_of", "2016-10-17", "as_of"),
        ("as_of", "2016-10-17T00:00:00", "as_of"),  # whose clock?
        ("as_of", 1.5e15, "as_of"),
        ("as_of", True, "as_of"),
        ("as_of", 0, "as_of"),
        ("as_of", -(2**63), "as_of"),
        ("as_of", 2**64 - 1, "as_of"),
        ("as_of", "9999-12-31T23:59:59-14:00", "as_of"),
        ("as_of", "0001-01-01T00:00:00+14:00", "as_of"),
        ("Limit", 3, "Limit"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(field: str, value: object, named: str) -> None:
    with pytest.raises(RequestError) as caught:
        build({**OK, field: value}, 10)
    body = orjson.loads(caught.value.body())["error"]
    assert body["field"] == named and caught.value.status == 422
    assert body["allowed"] and body["next"] and set(body) == {"field", "value", "allowed", "next"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"nan",
        b'{"surface": NaN}',
        b'{"surface": "homepage_hero", "limit": Infinity}',
        b'{"surface": "homepage_hero",}',
        b"\xff\xfe",
        b'{"surface": "\xff"}',
        b'{"user_id": "\\ud800", "surface": "homepage_hero"}',
        b"\xef\xbb\xbf{}",
        b'{"surface": "homepage_hero"} x',
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[" * 100_000,
        b'{"limit": ' + b"9" * 10_000 + b"}x",
    ],
)
def test_what_is_not_one_json_object_is_a_400(body: bytes) -> None:
    error = refused(body)
    assert error.status in (400, 422) and error.body()


def test_a_repeated_key_is_refused_at_any_depth() -> None:
    assert refused(b'{"surface": "homepage_hero", "limit": 3, "limit": 4}').field == "limit"
    nested = refused(b'{"surface": "homepage_hero", "context": {"page": "a", "page": "b"}}')
    assert (nested.field, nested.status) == ("page", 400)


def test_a_repeated_key_among_many_is_found_in_one_pass() -> None:
    """20,000 distinct keys and the last one twice held the loop for seconds."""
    keys = ",".join(f'"k{i}": 1' for i in range(20_000))
    plain, repeated = f"{{{keys}}}".encode(), f'{{{keys}, "k19999": 2}}'.encode()
    assert refused(repeated).field == "k19999"
    assert refused(plain).status == 422
    assert effort(lambda: refused(repeated)) < 20 * effort(lambda: refused(plain))


def test_a_huge_value_is_shortened_in_the_answer() -> None:
    error = refused(orjson.dumps({**OK, "user_id": "x" * 100_000}))
    assert len(error.body()) < 400


def test_rank_wants_items_and_no_limit() -> None:
    assert parse_rank(b'{"surface": "category_sort", "items": ["a", "b"]}', 10).items == ("a", "b")
    for body, field in (
        (OK, "items"),
        ({**OK, "items": []}, "items"),
        ({**OK, "items": ["a"], "limit": 1}, "limit"),
    ):
        with pytest.raises(RequestError) as caught:
            parse_rank(orjson.dumps(body), 10)
        assert caught.value.field == field


def test_a_query_string_says_the_same_as_a_body() -> None:
    pairs = [("surface", "pdp_fbt"), ("user_id", "7"), ("items", "a"), ("items", "b"), ("limit", "3")]
    pairs += [("debug", "true"), ("device", "mobile"), ("as_of", "1476662400000000")]
    body = {
        "surface": "pdp_fbt",
        "user_id": "7",
        "items": ["a", "b"],
        "limit": 3,
        "debug": True,
        "context": {"device": "mobile"},
        "as_of": 1_476_662_400_000_000,
    }
    assert parse_query(pairs, 10) == build(body, 10)


@pytest.mark.parametrize(
    ("pairs", "field"),
    [
        ([("surface", "pdp_fbt"), ("surface", "pdp_fbt")], "surface"),
        ([("surface", "pdp_fbt"), ("limit", "three")], "limit"),
        ([("surface", "pdp_fbt"), ("limit", "1e1")], "limit"),
        ([("surface", "pdp_fbt"), ("limit", "٣")], "limit"),
        ([("surface", "pdp_fbt"), ("limit", "9" * 5000)], "limit"),
        ([("surface", "pdp_fbt"), ("debug", "yes")], "debug"),
        ([("surface", "pdp_fbt"), ("user_id", "")], "user_id"),
        ([("surface", "pdp_fbt"), ("context", "{}")], "context"),
        ([("surface", "pdp_fbt"), ("as_of", "9" * 19)], "as_of"),
        ([], "surface"),
    ],
)
def test_a_wrong_query_is_refused_by_name(pairs: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_query(pairs, 10)
    assert caught.value.field == field


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("surface", "user_id", "items", "cart", "context", "limit", "debug", "as_of")


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_values_become_a_request_or_a_request_error(fields: dict[str, Any]) -> None:
    try:
        request = build({**OK, **fields}, 10)
    except RequestError as error:
        assert error.status == 422 and orjson.loads(error.body())["error"]["field"]
    else:
        assert 1 <= request.limit <= 100 and all(isinstance(i, str) for i in request.items)


@given(st.binary(max_size=200))
def test_any_bytes_become_an_object_or_a_request_error(body: bytes) -> None:
    try:
        assert isinstance(parse_object(body), dict)
    except RequestError as error:
        assert error.status == 400


@given(st.one_of(st.integers(), st.floats(), st.text(), st.datetimes().map(lambda d: d.isoformat() + "Z")))
def test_an_instant_is_in_this_century_or_refused(value: Any) -> None:
    try:
        us = parse_instant("ts", value)
    except RequestError:
        return
    assert us is not None and not math.isnan(us) and 946_684_800_000_000 <= us < 4_102_444_800_000_000


@pytest.mark.parametrize(
    ("written", "us"),
    [
        ("2000-01-01T00:00:00+00:03", 946_684_800_000_000),
        ("2099-12-31T23:59:59-05:00", 4_102_444_799_999_999),
    ],
)
def test_a_year_is_that_of_the_text_also_at_the_edges(written: str, us: int) -> None:
    assert parse_instant("ts", written) == us
    for outside in ("1999-12-31T23:00:00-05:00", "2100-01-01T00:00:00+05:00"):
        with pytest.raises(RequestError, match="from 2000 to 2099"):
            parse_instant("ts", outside)
