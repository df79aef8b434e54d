"""Experiments: the document of flags, its versions, who gets which variant, what a worker does with it."""
