"""A first look at an export, before any stage: what is there, what the shop will get, what it takes."""
