"""What a person must hear of: found, told to a webhook and the console, and told again when it is over."""
