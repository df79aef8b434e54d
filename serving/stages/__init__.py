"""The stages of a request: eligibility, retrieval, ranking, diversity, what rules ask of them."""
