"""Who a shopper is in the stores: pseudonyms made at the door, and those who asked to be forgotten."""
