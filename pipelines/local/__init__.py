"""A running shop on one machine: its processes, how they are, what makes them right again."""
