"""What serves: a bundle, the state in Redis, who gets which arm, how each arm fares."""
