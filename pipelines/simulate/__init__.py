"""A shop that never was: its assortment, its shoppers, their journeys."""
