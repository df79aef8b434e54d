"""Lists made beforehand for shoppers seen lately, cohorts and categories, while the shop is open."""
