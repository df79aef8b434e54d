"""The only file that Feast loads (.feastignore names the rest): every object of the registry, once.

`feast apply` imports each file of a repository as a module of its own; a view that two files import would be
defined twice and refused.
"""

from feature_repo.features.entities import ITEM, SESSION, USER  # noqa: F401  (Feast finds them here)
from feature_repo.features.views import services, views

_views = views()
user_history, session_context = _views["user_history"], _views["session_context"]
item_activity, item_catalogue = _views["item_activity"], _views["item_catalogue"]
tower, visitor, items, ranker = services(_views)
