"""What is served against what the ranker was trained on."""
