"""Well-known recommenders, written from their papers, for benchmarks/quality.py to compare with."""
