"""What is fitted: the contacts that models learn from, and the log of a run."""
