"""Two evaluations side by side, query by query: what differs, how sure that is, and in which lists."""
