"""From an answer to the data behind it, and from a release to the answers that it gave."""
