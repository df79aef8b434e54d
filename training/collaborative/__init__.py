"""Item-item tables and factors: co-visits, EASE, ALS."""
