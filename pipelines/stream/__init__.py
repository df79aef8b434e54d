"""The consumers that turn live events into rows, and the way there and back."""
