"""Doors for clients of other systems: their addresses, answers and lists over the shop's own."""
