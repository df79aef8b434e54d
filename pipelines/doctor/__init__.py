"""A first look: what an export holds and what it takes; what must be mended of a deployment that runs."""
