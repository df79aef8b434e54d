"""Rules at the terminal: checked, seen on real lists, tried out, published, taken back."""
