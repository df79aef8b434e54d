"""A request under its deadline: online features, fallbacks, the log of what was shown."""
