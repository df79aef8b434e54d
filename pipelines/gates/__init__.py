"""What a release must show: the bar, slices with margins, speed and size, and the page that tells it."""
