"""What a release in the shadow would have shown beside what was shown: how alike, how fast, how sound."""
