"""Shopper and item tower in one vector space, and the text vectors they read."""
