"""History: the backfill of the folds, the point-in-time join, items through time."""
