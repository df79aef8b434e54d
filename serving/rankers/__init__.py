"""The kinds of ranker that a release may hold, each read, asked and explained by a file of its own."""
