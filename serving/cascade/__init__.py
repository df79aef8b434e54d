"""What a request that has waited still gets: rungs, their prices, lists without a ranker."""
