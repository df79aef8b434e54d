"""A capped budget of slots for products that nobody was shown: the draw, the worker's part, the cap."""
