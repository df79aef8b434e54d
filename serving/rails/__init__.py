"""Lists made beforehand: of a shopper, a cohort, a category; where they are kept, how old they may be."""
