"""One Feast view per fold, made from the fold's own columns: a feature is declared once, in its fold.

view             entity   offline rows                                  online row
user_history     user     one per instant at which the user acted        the state after the newest event
session_context  session  one per instant of the visit                   the state after the newest event
item_activity    item     one per instant at which the item was touched  the state after the newest event
item_catalogue   item     one                                            the same

A service says which views a model reads. A release names its service, so no model meets columns it was not
fitted on. One request is one visitor and many items: the two halves are read separately (`visitor`, `items`),
online as offline, and `ranker` is their union. `tower` is the part of the visitor that the user tower sees.
"""

from collections.abc import Mapping
from datetime import timedelta

from feast import FeatureService, FeatureView, Field
from feast.types import Array, FeastType, Float64, Int64, String

from feature_repo.features.catalogue import DECLARED
from feature_repo.features.entities import BY_KEY
from feature_repo.features.sources import source
from feature_repo.folds.fold import Fold

FEAST_TYPES: dict[str, FeastType] = {
    "int64": Int64,
    "float64": Float64,
    "string": String,
    "list<string>": Array(String),
    "list<int64>": Array(Int64),
}
VISITOR = ("user_history", "session_context")
ITEMS = ("item_activity", "item_catalogue")
TOWER = {
    "user_history": ["recent_items", "recent_ts", "recent_kinds"],
    "session_context": ["contact_items", "contact_ts", "contact_kinds"],
}


def view(declared: Fold) -> FeatureView:
    """The Feast view of a fold: same name, key, columns and age limit."""
    key = Field(name=declared.key, dtype=String)
    features = [
        Field(name=c.name, dtype=FEAST_TYPES[c.dtype], description=f"{c.doc} [{c.unit}]")
        for c in declared.columns
    ]
    return FeatureView(
        name=declared.name,
        entities=[BY_KEY[declared.key]],
        ttl=timedelta(days=declared.max_age_days),
        schema=[key, *features],
        source=source(declared.name),
        online=True,
        description=declared.doc,
    )


def views() -> dict[str, FeatureView]:
    """Every view by name, with sources below the present root()."""
    return {declared.name: view(declared) for declared in DECLARED}


def services(declared: Mapping[str, FeatureView]) -> list[FeatureService]:
    """The services over `declared`. Read them with full names, <view>__<column>: views share column names."""
    return [
        FeatureService(name="tower", features=[declared[name][columns] for name, columns in TOWER.items()]),
        FeatureService(name="visitor", features=[declared[name] for name in VISITOR]),
        FeatureService(name="items", features=[declared[name] for name in ITEMS]),
        FeatureService(name="ranker", features=[declared[name] for name in (*VISITOR, *ITEMS)]),
    ]
