"""Offline equals online, and nothing knows the future."""
