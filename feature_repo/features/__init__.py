"""Every stored feature, the catalogue, and their Feast views, services and store."""
