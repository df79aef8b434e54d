"""Rows for items that came after the fit: read again when a vector changed, not when somebody looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from redis import Redis
from shops.tiny_bundle import catalogue, matrix

from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.online.newborns import Newborn, write
from serving.live.newborn_rows import NewbornRows


def said(items: Sequence[str], born: Sequence[int]) -> dict[str, list[Any]]:
    return {column.name: [None] * len(items) for column in ITEM_CATALOGUE.columns}


def test_whoever_only_looked_at_a_newborn_changes_no_row(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        rows = NewbornRows(redis, "space", 2)
        made = {f"new-{i}": Newborn(10 + i, b"12345678", np.full(4, i + 1, np.float32)) for i in range(3)}
        write(redis, "space", made, {}, 1)
        grown = rows.grown(matrix(catalogue(9)), None, said)
        assert grown.ids[9:] == ["new-0", "new-1"]  # the third has no room
        assert rows.grown(grown, ["new-0", "new-2", "item-1"], said) is grown
        write(redis, "space", {"new-0": made["new-1"]}, made, 1)
        other = rows.grown(grown, ["new-0"], said)
        assert other is not grown and other.newborns.vectors[0, 0] == 2.0
        write(redis, "space", {"new-0": None}, {"new-0": made["new-1"]}, 1)
        assert rows.grown(other, ["new-0"], said).ids[9:] == ["new-1"]
