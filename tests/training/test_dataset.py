"""What training may see: contacts strictly before the cut, and whose they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import DataError
from feature_repo.events import ITEM_SCHEMA, SCHEMA
from feature_repo.features.context import encode_context
from training.dataset import Catalogue, Contacts, read_catalogue, read_contacts, session_matrix

CUT = datetime(2026, 2, 1, tzinfo=UTC)
ITEMS = ["cap", "mug", "pen"]


def event(minutes: float, item: str, session: str, **fields: Any) -> dict[str, Any]:
    """A view `minutes` before the cut, complete but for what `fields` change."""
    ts = CUT - timedelta(minutes=minutes)
    made: dict[str, Any] = {
        "event_id": f"{session}-{item}-{minutes}",
        "type": "product_viewed",
        "item_id": item,
    }
    made |= {"event_ts": ts, "created_ts": ts, "session_id": session, "consent": True}
    return {**dict.fromkeys(SCHEMA.names), **made, **fields}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    rows = [{**dict.fromkeys(ITEM_SCHEMA.names), "item_id": i, "title": i, "currency": "EUR"} for i in ITEMS]
    pq.write_table(pa.Table.from_pylist(rows, ITEM_SCHEMA), raw / "items.parquet")
    return raw


def contacts_from(home: Path, events: list[dict[str, Any]]) -> Contacts:
    pq.write_table(pa.Table.from_pylist(events, SCHEMA), home / "events.parquet")
    return read_contacts(read_catalogue(), CUT)


def test_an_event_at_the_cut_or_later_is_not_seen(home: Path) -> None:
    events = [event(1e-6 / 60 * k, item, "a") for k, item in ((1, "cap"), (0, "mug"), (-1, "pen"))]
    contacts = contacts_from(home, events)
    assert contacts.item.tolist() == [0]
    assert contacts.ts.tolist() == [round(CUT.timestamp() * 1e6) - 1]


def test_what_happens_after_the_cut_changes_no_array(home: Path) -> None:
    before = [event(9, "cap", "a", user_id=None), event(8, "mug", "a"), event(7, "pen", "b")]
    after = [event(-5, "pen", "a", user_id="u"), event(-6, "cap", "b", user_id="u", device="mobile")]
    without, with_later = contacts_from(home, before), contacts_from(home, before + after)
    for name, array in vars(without).items():
        assert array.tobytes() == vars(with_later)[name].tobytes(), name


def test_only_contacts_with_products_of_the_catalogue_count(home: Path) -> None:
    others = [event(5, "cap", "a", type=t) for t in ("impression", "click", "remove_from_cart", "dwell")]
    kinds = [event(4, "mug", "a", type="purchase_completed"), event(3, "mug", "a", type="add_to_cart")]
    contacts = contacts_from(home, [*others, event(6, "unknown", "a"), *kinds])
    assert (contacts.item.tolist(), contacts.kind.tolist()) == ([1, 1], [3, 2])


def test_one_named_event_names_the_whole_visit_if_the_shopper_consents(home: Path) -> None:
    events = [
        event(9, "cap", "morning"),
        event(8, "mug", "morning", user_id="ann"),
        event(5, "pen", "evening", user_id="ann", device="mobile", country="Italy"),
        event(4, "pen", "private", user_id="ann", consent=False),
        event(3, "cap", "nobody"),
    ]
    contacts = contacts_from(home, events)
    owners: dict[int, list[int]] = {int(owner): [] for owner in contacts.owner}
    for owner, item in zip(contacts.owner.tolist(), contacts.item.tolist(), strict=True):
        owners[owner].append(item)
    assert sorted(owners.values()) == [[0], [0, 1, 2], [2]]
    assert encode_context("mobile", None, "Italy") in map(tuple, contacts.context.tolist())


def test_an_owner_named_like_a_session_is_another(home: Path) -> None:
    contacts = contacts_from(home, [event(2, "cap", "x"), event(1, "mug", "y", user_id="x")])
    assert len(set(contacts.owner.tolist())) == 2


def test_the_session_matrix_is_binary(home: Path) -> None:
    events = [event(3, "cap", "a"), event(2, "cap", "a"), event(1, "pen", "a"), event(1, "mug", "b")]
    matrix = session_matrix(contacts_from(home, events), len(ITEMS))
    assert matrix.toarray().tolist() == [[1, 0, 1], [0, 1, 0]]


def test_nothing_to_learn_from_is_an_error_that_says_what_to_do(home: Path) -> None:
    with pytest.raises(DataError, match=r"no product event before 2026-02-01.*move the cuts"):
        contacts_from(home, [event(-1, "cap", "a")])
    (home / "items.parquet").unlink()
    with pytest.raises(DataError, match=r"items\.parquet: is missing.*endcap ingest"):
        read_catalogue()


def test_the_catalogue_keeps_its_order(home: Path) -> None:
    catalogue = read_catalogue()
    assert isinstance(catalogue, Catalogue)
    assert (catalogue.item_ids, len(catalogue)) == (ITEMS, 3)
