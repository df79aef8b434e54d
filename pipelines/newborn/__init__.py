"""Items that came after a release was fitted: their vectors, by the release's own item tower."""
