"""Surfaces beyond the homepage: what each is worth on its own slice, and the e-mails that are due."""
