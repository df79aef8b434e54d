"""The ground floor: events and items, the clock, files and places, errors, settings."""
