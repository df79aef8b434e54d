"""The product: the request path on one screen, the service, its types and settings."""
