"""What a shop learns before it serves: the quotas of its sources, the window of purchases, the order."""
