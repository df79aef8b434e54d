"""The query points of the past: what was known, what was wanted, NDCG and coverage."""
