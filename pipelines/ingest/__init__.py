"""From any shop's export to canonical events and items; what is refused, and why."""
