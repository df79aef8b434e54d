"""The door: routes, bodies, what is refused and how, events on their way in."""
