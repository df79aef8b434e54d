"""Redis: the one connection, Feast's rows read and written fast, news of changes."""
