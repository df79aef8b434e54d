"""From stored rows to the ranker's 28 columns, and the hash of what they mean."""
