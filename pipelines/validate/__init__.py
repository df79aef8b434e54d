"""Great Expectations on events, catalogue and training set."""
