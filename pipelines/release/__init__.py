"""From an evaluation through the bar to a champion, and back."""
