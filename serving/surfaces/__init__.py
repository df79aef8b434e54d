"""Each surface's own craft: what it starts from, which sources it asks, what may stand in its list."""
