"""Which views a model reads. A release names its service, so no model meets columns it was not fitted on.

One request is one visitor and many items: the two halves are read separately (`visitor`, `items`), online as
offline, and `ranker` is their union. `tower` is the part of the visitor that the user tower sees.
"""

from collections.abc import Mapping

from feast import FeatureService, FeatureView

VISITOR = ("user_history", "session_context")
ITEMS = ("item_activity", "item_catalogue")
TOWER = {
    "user_history": ["recent_items", "recent_ts", "recent_kinds"],
    "session_context": ["contact_items", "contact_ts", "contact_kinds"],
}


def services(views: Mapping[str, FeatureView]) -> list[FeatureService]:
    """The services over `views`. Read them with full names, <view>__<column>: views share column names."""
    return [
        FeatureService(name="tower", features=[views[name][columns] for name, columns in TOWER.items()]),
        FeatureService(name="visitor", features=[views[name] for name in VISITOR]),
        FeatureService(name="items", features=[views[name] for name in ITEMS]),
        FeatureService(name="ranker", features=[views[name] for name in (*VISITOR, *ITEMS)]),
    ]
