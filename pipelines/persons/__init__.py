"""A person's data: where it is, its removal from everywhere with a receipt, and what is kept how long."""
