"""The stages of a request: rules, retrieval, ranking, diversity."""
