"""A merchandiser's fitting room: rules checked, seen on real lists, tried out, published, taken back."""
