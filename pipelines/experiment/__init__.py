"""Experiments at the terminal: published, started, planned, stopped, and what came of them."""
