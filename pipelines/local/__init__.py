"""A running shop on one machine, and the demo."""
