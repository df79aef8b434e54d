"""A merchandiser's fitting room: drafts of rules on real lists, and against the answers that were logged."""
