"""docs/ingest.md about the platforms is executed: its sections of params.yaml, file names and catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from shops.platforms import csv_of, json_lines
from shops.small_export import rows

from feature_repo.vocabulary.trackers import GA4, SEGMENT
from pipelines import cli
from pipelines.ingest.adapters.platform import Platform

PROJECT = Path(__file__).resolve().parents[4]
PAGE = (PROJECT / "docs" / "ingest.md").read_text()
PLATFORMS = ("ga4", "shopify", "woocommerce", "segment")
WHEN = "2026-01-31T12:00:00Z"
VIEW = {
    "event_timestamp": "1769860800000000",
    "event_name": "view_item",
    "user_pseudo_id": "c1",
    "event_params": [{"key": "ga_session_id", "value": {"int_value": "7"}}],
    "items": [{"item_id": "a", "item_name": "Mug"}],
}
ORDER = {
    "id": 1,
    "status": "completed",
    "date_created_gmt": WHEN[:-1],
    "line_items": [{"product_id": 5, "name": "Mug"}],
}
LINE = ("#1", WHEN, "a@x.example", "Mug", 1, 9.5, "a")
COLUMNS = (
    "Name",
    "Created at",
    "Email",
    "Lineitem name",
    "Lineitem quantity",
    "Lineitem price",
    "Lineitem sku",
)
SEEN = ("anonymous_id", "timestamp", "product_id", "name", "products")
FILES = {
    "ga4": {"events_20260131.jsonl": json_lines([VIEW])},
    "shopify": {
        "orders_export_1.csv": csv_of(COLUMNS, [LINE]),
        "products_export_1.csv": csv_of(("Handle", "Title", "Variant SKU"), [("mug", "Mug", "a")]),
    },
    "woocommerce": {
        "orders-1.jsonl": json_lines([ORDER]),
        "wc-product-export-31-1-2026.csv": csv_of(("ID", "Type", "Name"), [(5, "simple", "Mug")]),
    },
    "segment": {
        f"{table}.csv": csv_of(SEEN, [("c1", WHEN, "a", "Mug", "[]")]) for table in ("product_viewed",)
    },
}
ITEMS = {"ga4": "a", "shopify": "mug", "woocommerce": "5", "segment": "a"}


def page(name: str) -> str:
    """The text under a heading of the third order."""
    return re.split(r"^##", PAGE.split(f"\n### {name}\n")[1], flags=re.M)[0]


def example(name: str) -> str:
    found = re.search(r"```yaml\n(.*?)```", page(name), re.S)
    assert found
    return found[1]


def ingested(home: Path, monkeypatch: pytest.MonkeyPatch, sections: str, files: dict[str, str]) -> None:
    """`endcap ingest` of the shop that the page shows, with these files in its source folder."""
    constants = (
        yaml.safe_load((PROJECT / "params.yaml").read_text()) | yaml.safe_load(sections) | {"shop": "mine"}
    )
    (home / "params.yaml").write_text(yaml.safe_dump(constants))
    folder = home / constants["shops"]["mine"]["source"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("ENDCAP_HOME", str(home))
    assert cli.run(["ingest"]) == 0


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_section_that_the_page_shows_imports_files_of_these_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ingested(tmp_path, monkeypatch, example(name), FILES[name])
    (event,) = rows(tmp_path / "data" / "raw" / "events.parquet")
    (item,) = rows(tmp_path / "data" / "raw" / "items.parquet")
    assert event["item_id"] == item["item_id"] == ITEMS[name] and item["title"] == "Mug"
    told = next(kind.lacks for kind in Platform.__subclasses__() if kind.__name__.lower() == name)
    assert told in capsys.readouterr().out


def test_the_feed_that_the_page_shows_is_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = "<rss><item><id>a</id><title>Mug of the feed</title></item></rss>"
    mapping = example("A product feed as catalogue")
    sections = example("ga4").replace("mapping: null", "mapping: exports/ga4/catalogue.yaml")
    ingested(tmp_path, monkeypatch, sections, FILES["ga4"] | {"feed.xml": feed, "catalogue.yaml": mapping})
    assert [item["title"] for item in rows(tmp_path / "data" / "raw" / "items.parquet")] == [
        "Mug of the feed"
    ]


def test_the_pages_name_every_event_and_table_that_is_read() -> None:
    assert not [word for word in GA4 if f"`{word}`" not in page("ga4")]
    assert not [word for word in SEGMENT if f"`{word}`" not in page("segment")]


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_page_names_the_patterns_of_the_files(name: str) -> None:
    (kind,) = (kind for kind in Platform.__subclasses__() if kind.__name__.lower() == name)
    mapped = [part.file[0] for part in (kind.mapping.events, kind.mapping.items) if part]
    assert not [pattern for pattern in mapped if pattern.partition("*")[0].rstrip(".") not in page(name)]
