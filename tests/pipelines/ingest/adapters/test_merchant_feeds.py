"""Google Merchant product feeds as the catalogue of any adapter's events."""

from __future__ import annotations

from pathlib import Path

import pytest
from shops.platforms import imported, json_lines, kept, refused

from feature_repo.errors import DataError

HEAD = '<?xml version="1.0"?>\n<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">'
RSS = (
    HEAD
    + """<channel><title>Roost</title>
<item><g:id>a</g:id><title>page of a</title><g:title>Mug &amp; saucer</g:title>
<g:price>9.50 EUR</g:price><g:shipping><g:country>DE</g:country><g:price>4.90 EUR</g:price></g:shipping>
<g:availability>in_stock</g:availability><g:product_type>Home &gt; Mugs</g:product_type>
<g:product_type>Gifts</g:product_type>
<g:image_link>https://x.example/a.jpg</g:image_link><g:brand>Roost</g:brand><g:gtin>4006381333931</g:gtin></item>
<item><g:id>b</g:id><description><![CDATA[<b>Deep</b>]]></description><title>Bowl</title>
<g:price>EUR 7</g:price><g:availability>out of stock</g:availability></item>
<item><g:id>c</g:id><title>Lamp</title><g:price>ask us</g:price></item>
<item><title>Nameless</title><g:price>1.00 EUR</g:price></item>
<item><g:id>a</g:id><title>Mug again</title></item>
</channel></rss>
"""
)
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">
<entry><g:id>a</g:id><title>Mug</title><g:price>9.50 EUR</g:price></entry></feed>"""
TSV = (
    "id\ttitle\tprice\timage link\tproduct type\tavailability\n"
    "a\tMug, blue\t9.50 EUR\thttps://x.example/a.jpg\tHome > Mugs\tin stock\n"
    "b\tBowl\t1,299.00 EUR\t\t\tout_of_stock\n"
)
FIELDS = ("item_id", "title", "category_path", "brand", "price", "currency", "stock", "image_path")
VIEWS = [
    {
        "event_timestamp": "1769860800000000",
        "event_name": "view_item",
        "user_pseudo_id": "c1",
        "event_params": [{"key": "ga_session_id", "value": {"int_value": "7"}}],
        "items": [{"item_id": item, "item_name": "as the tracker calls it"}],
    }
    for item in ("a", "gone")
]


def write(folder: Path, feed: str, name: str = "feed.xml", more: str = "") -> None:
    (folder / "events_1.jsonl").write_text(json_lines(VIEWS))
    (folder / name).write_text(feed)
    (folder / "catalogue.yaml").write_text(f"items: {{file: {name}{more}}}\n")


def test_a_feed_is_the_catalogue_of_another_adapters_events(tmp_path: Path) -> None:
    write(tmp_path, RSS)
    imported("ga4", tmp_path, mapping="catalogue.yaml")
    assert kept(tmp_path, "items", *FIELDS) == [
        ("a", "Mug & saucer", "Home/Mugs", "Roost", 9.5, "EUR", None, "https://x.example/a.jpg"),
        ("b", "Bowl", None, None, 7.0, "EUR", 0, None),
    ]
    assert kept(tmp_path, "items", "description", "gtin") == [(None, "4006381333931"), ("<b>Deep</b>", None)]
    assert refused(tmp_path, "items") == [
        (10, "price", "ask us"),
        (11, "item_id", None),
        (12, "item_id", "a"),
    ]
    assert kept(tmp_path, "events", "item_id") == [("a",), ("gone",)]


def test_a_text_feed_with_blanks_in_its_names_is_read_alike(tmp_path: Path) -> None:
    write(tmp_path, TSV, "feed.tsv", ", decimal: '.'")
    imported("ga4", tmp_path, mapping="catalogue.yaml")
    assert kept(tmp_path, "items", *FIELDS) == [
        ("a", "Mug, blue", "Home/Mugs", None, 9.5, "EUR", None, "https://x.example/a.jpg"),
        ("b", "Bowl", None, None, 1299.0, "EUR", 0, None),
    ]


def test_atom_and_the_table_adapter_go_together_too(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("at,visit,sku\n2026-01-31T12:00:00Z,s1,a\n")
    (tmp_path / "feed.xml").write_text(ATOM)
    (tmp_path / "mapping.yaml").write_text(
        "events: {file: e.csv, columns: {event_ts: at, session_id: visit, item_id: sku}, "
        "defaults: {type: product_viewed}}\nitems: {file: feed.xml}\n"
    )
    imported("table", tmp_path, mapping="mapping.yaml")
    assert kept(tmp_path, "items", "item_id", "title", "price", "currency") == [("a", "Mug", 9.5, "EUR")]


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        (
            '<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]>\n<rss><item>&e;</item></rss>',
            "line 1: a document type",
        ),
        (RSS[:400], "not XML"),
        ("", "the file is empty"),
        ("<rss><item><title>Mug</title></item></rss>", "no product has an id; attributes are 'title'"),
        ("<rss></rss>", "the file has no rows"),
        ("a;b\n1;2\n", "line 1: not XML"),
    ],
)
def test_what_is_no_feed_is_refused(tmp_path: Path, feed: str, message: str) -> None:
    write(tmp_path, feed)
    with pytest.raises(DataError, match=message):
        imported("ga4", tmp_path, mapping="catalogue.yaml")


def test_xml_is_for_items_alone_and_the_second_file_of_a_mapping_is_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text("events: {file: e.xml}\n")
    with pytest.raises(DataError, match="events: unknown key; allowed: items"):
        imported("ga4", tmp_path, mapping="mapping.yaml")
    (tmp_path / "e.xml").write_text(RSS)
    (tmp_path / "mapping.yaml").write_text(
        "events: {file: e.xml, columns: {event_ts: at, session_id: s, item_id: id, type: t}}\n"
    )
    with pytest.raises(DataError, match="is XML; allowed: a product feed, for items alone"):
        imported("table", tmp_path, mapping="mapping.yaml")
