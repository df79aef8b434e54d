"""What the running shop has seen becomes training data, a fresher release, a new one."""
