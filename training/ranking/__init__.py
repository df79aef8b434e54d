"""The learning-to-rank model on the 28 columns."""
