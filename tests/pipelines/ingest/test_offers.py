"""Files that say something of items: tables and product feeds become documents, a hostile one is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import DataError, EndcapError, UnavailableError
from feature_repo.params import load
from pipelines.ingest.items import batches, post
from pipelines.ingest.offers import Offer, read_offers
from serving.http.requests import MAX_PARTS, PARTS
from serving.params import Serving

RSS = """<?xml version="1.0"?><rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel>
<item><g:id>a</g:id><title>Mug</title><g:price>12.99 EUR</g:price>
<g:availability>out_of_stock</g:availability><g:product_type>Home &gt; Mugs</g:product_type></item>
<item><g:id>b</g:id><g:price>1,299.00 EUR</g:price><g:availability>in_stock</g:availability></item>
</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><entry>
<g:id>a</g:id><g:title>Mug</g:title><g:price>12.99 EUR</g:price><g:availability>out of stock</g:availability>
<g:product_type>Home &gt; Mugs</g:product_type></entry></feed>"""
TSV = "id\ttitle\tprice\tavailability\tproduct type\na\tMug\t12.99 EUR\tout_of_stock\tHome > Mugs\n"
MUG = {
    "title": "Mug",
    "price": 12.99,
    "item_id": "a",
    "category_path": "Home/Mugs",
    "currency": "EUR",
    "stock": 0,
}
BOMB = """<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;">]><rss><channel><item><id>&c;</id></item></channel></rss>"""
OUTSIDE = """<!DOCTYPE l [<!ENTITY f SYSTEM "file:///etc/passwd">]><rss><channel><item><id>&f;</id></item></channel></rss>"""


def offers(path: Path, content: str | bytes) -> list[Offer]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_offers(path))


def test_a_table_says_what_its_cells_hold_and_an_empty_one_says_nothing(tmp_path: Path) -> None:
    text = 'item_id;title;price;stock;deleted;accessories\na;"Mug; blue";12,5;;;b|c\nb;;3.5;0;;\n'
    text += "c;;;;true;\nd;x\n"
    found = offers(tmp_path / "a.csv", text)
    assert [offer.document for offer in found[:3]] == [
        {
            "item_id": "a",
            "title": "Mug; blue",
            "price": "12,5",
            "accessories": ["b", "c"],
        },  # the door refuses it
        {"item_id": "b", "price": 3.5, "stock": 0},
        {"item_id": "c", "deleted": True},
    ]
    assert found[3].lost == "as many cells as the header" and found[3].text == "'d;x'"


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    rows = [
        {"item_id": "a", "price": 2.0, "stock": 3.0, "available_from": datetime(2026, 1, 3, tzinfo=UTC)},
        {"item_id": "b", "price": None, "stock": float("nan"), "available_from": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    opening = "2026-01-03T00:00:00+00:00"
    assert [offer.document for offer in read_offers(tmp_path / "a.parquet")] == [
        {"item_id": "a", "price": 2.0, "stock": 3, "available_from": opening},
        {"item_id": "b"},
    ]


@pytest.mark.parametrize(("name", "text"), [("f.xml", RSS), ("f.xml", ATOM), ("f.tsv", TSV)])
def test_a_product_feed_is_known_by_its_form(tmp_path: Path, name: str, text: str) -> None:
    found = offers(tmp_path / name, text)
    assert found[0].document == MUG
    if text is RSS:  # in stock, and nobody says how many
        assert found[1].document == {"item_id": "b", "price": 1299.0, "currency": "EUR", "stock": None}


@pytest.mark.parametrize("text", [BOMB, OUTSIDE])
def test_xml_with_a_document_type_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="a document type; allowed: XML without one"):
        offers(tmp_path / "f.xml", text)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "sku,price\n1,2\n", "id"),
        ("a.csv", b"\xff\xfe\x00", "UTF-16"),
        ("a.pdf", "x", "its name says no known form"),
        ("a.xml", "<rss><channel>", "not XML"),
        ("a.parquet", "x", "cannot be read to its end"),
    ],
)
def test_a_file_that_is_none_of_these_is_refused(
    tmp_path: Path, name: str, content: str | bytes, told: str
) -> None:
    with pytest.raises(DataError, match=told):
        offers(tmp_path / name, content)


def test_a_batch_fits_one_request(tmp_path: Path) -> None:
    params = load("serving", Serving)
    many = [Offer(row, {"item_id": str(row)}) for row in range(2_500)]
    assert [len(batch) for batch in batches(many, params)] == [1_000, 1_000, 500]
    for fat in ({"description": "x" * 90_000}, {"accessories": ["a"] * 900}):
        made = list(batches([Offer(row, {"item_id": "a", **fat}) for row in range(100)], params))
        assert sum(map(len, made)) == 100
        for batch in made:
            body = orjson.dumps({"items": [{"event_ts": 2**60, **offer.document} for offer in batch]})
            assert len(body) <= params.max_body_bytes and sum(map(body.count, PARTS)) <= MAX_PARTS


class Door(httpx.BaseTransport):
    """Answers in turn; an exception is raised."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.bodies = list(answers), list[bytes]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.read())
        if isinstance(answer := self.answers.pop(0), Exception):
            raise answer
        return answer


def pushed(door: Door, tries: int = 4) -> dict[str, Any]:
    with httpx.Client(transport=door, base_url="http://shop") as client:
        return post(client, [{"item_id": "a", "price": 1}], tries)


def test_a_batch_is_sent_again_byte_for_byte_until_it_is_answered() -> None:
    busy = httpx.Response(503, headers={"retry-after": "0"})
    done = httpx.Response(202, json={"accepted": 1, "rejected": []})
    door = Door(httpx.ConnectError("away"), busy, httpx.ReadTimeout("late"), done)
    assert pushed(door) == {"accepted": 1, "rejected": []}
    assert len(set(door.bodies)) == 1 and len(door.bodies) == 4
    assert orjson.loads(door.bodies[0])["items"][0]["event_ts"] > 1_700_000_000_000_000


def test_what_another_try_would_not_change_is_told_at_once() -> None:
    door = Door(httpx.Response(401, text="send the catalogue key"))
    with pytest.raises(EndcapError, match="401 send the catalogue key"):
        pushed(door)
    with pytest.raises(UnavailableError, match=r"did not take a batch in 2 tries \(ConnectError: away\)"):
        pushed(Door(*[httpx.ConnectError("away")] * 2), tries=2)
