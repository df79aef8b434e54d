"""The feature schema: what the stored rows and the ranker's 28 columns are and mean, as one hash.

A release, a sampled answer and a logged training row carry it: values under another hash may have equal names
and another meaning.
"""

import hashlib
import json
from functools import cache
from typing import Any

from feature_repo.assemble.crosses import RECENCY
from feature_repo.assemble.vectorize import READINGS
from feature_repo.features.catalogue import ITEM_CATALOGUE, TAGS
from feature_repo.features.stored import FOLDS
from feature_repo.folds.fold import Part
from feature_repo.folds.parts import POSITION_EXPONENT, Counts
from feature_repo.folds.rates import PRIOR_CLICKS, PRIOR_EXPOSURE


def declared() -> dict[str, Any]:
    """All that the hash covers, in plain values: columns, views, parts and constants of their formulas."""
    return {
        "columns": [[c, r.column, r.unit, r.doc, r.of] for c, group in READINGS.items() for r in group],
        "views": [
            [
                view.name,
                view.key,
                view.max_age_days,
                view.doc,
                [list(c) for c in view.columns if c.name != TAGS],
            ]
            for view in (*FOLDS, ITEM_CATALOGUE)
        ],
        "parts": [[fold.name, [_part(part) for part in fold.parts]] for fold in FOLDS],
        "formulas": [RECENCY, POSITION_EXPONENT, PRIOR_CLICKS, PRIOR_EXPOSURE],
    }


def _part(part: Part) -> list[Any]:
    """Its kind and the events that it reads; of decayed counts also half-life (us) and weights."""
    counters = part.counters if isinstance(part, Counts) else ()
    told = [[c.name, c.half_life_us, sorted(c.weights.items()), c.examined] for c in counters]
    return [type(part).__name__, sorted(part.types), told]


@cache
def schema_hash() -> str:
    """16 hex digits that change with the name, type, unit, meaning, half-life or weights of any feature."""
    return hashlib.sha256(json.dumps(declared()).encode()).hexdigest()[:16]
