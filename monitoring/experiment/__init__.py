"""Clicks credited to lists, the sequential test, the guard and the plan of a canary."""
