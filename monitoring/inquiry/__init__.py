"""What is known of a shopper or a product, and why a list shows what it shows, by the service's own word."""
