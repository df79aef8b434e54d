"""An item's attraction: how much more often it is clicked than others that were shown in the same places.

A click needs that a position is looked at and that the item attracts (the position-based model: Craswell et
al., WSDM 2008). So clicks are set against those that an average item would have got where this one was shown:

    attraction = log((clicks + prior) / (expected + prior))
    expected   = sum over its impressions of position ** -POSITION_EXPONENT * rate of the surface

Surfaces are told apart, or an item that stands on the homepage, where few click, would seem to repel. It is
fitted, not counted live: what is shown for its attraction would change it within hours.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.clock import DAY_US, micros
from feature_repo.folds.parts import POSITION_EXPONENT
from feature_repo.offline.duck import connect

_SUMS = """
select item_id, coalesce(surface, '') as surface,
       sum(power(0.5, ($cut - epoch_us(event_ts)) / $half_life)
           * power(greatest(coalesce(position, slot + 1, 1), 1), -$exponent)) as shown
from read_parquet($file) where type = $type and epoch_us(event_ts) < $cut and item_id is not null
group by 1, 2
"""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AttractionParams:
    """`item_item.attraction:`"""

    half_life_days: float  # of an impression and a click
    prior: float  # clicks of an average item that every item is given


def fit_attraction(
    ids: list[str], events: Path, impressions: Path, cut: datetime, params: AttractionParams
) -> Floats:
    """float32 (N,), aligned to `ids`, from lists and clicks before `cut`; zeros in a shop that logs none."""
    shown = _sums(impressions, "impression", POSITION_EXPONENT, cut, params)
    clicked = _sums(events, "click", 0.0, cut, params)
    if shown.empty or clicked.empty:
        return np.zeros(len(ids), np.float32)
    if not set(clicked["surface"]) & set(shown["surface"]):  # clicks that do not say where
        shown["surface"] = clicked["surface"] = ""
    rate = clicked.groupby("surface")["shown"].sum() / shown.groupby("surface")["shown"].sum()
    expected = (shown["shown"] * shown["surface"].map(rate)).groupby(shown["item_id"]).sum()
    clicks = clicked[clicked["surface"].isin(rate.dropna().index)].groupby("item_id")["shown"].sum()
    sums = [
        found.reindex(ids).fillna(0.0).to_numpy(np.float64) + params.prior for found in (clicks, expected)
    ]
    return np.log(sums[0] / sums[1]).astype(np.float32)


def _sums(file: Path, kind: str, exponent: float, cut: datetime, params: AttractionParams) -> "pd.DataFrame":
    """Decayed sums by item and surface; a weight of 1 each with an `exponent` of 0."""
    asked = {
        "file": str(file),
        "type": kind,
        "cut": micros(cut),
        "half_life": params.half_life_days * DAY_US,
        "exponent": exponent,
    }
    with connect(threads=1) as db:  # several add in another order each time: other bytes
        return db.sql(_SUMS, params=asked).df().sort_values(["item_id", "surface"], ignore_index=True)
