"""Who may ask what and how often, and which clicks count: keys, rates, signed request ids."""
