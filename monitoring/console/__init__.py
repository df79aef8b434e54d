"""The admin plane: who may sign in, and the table of its pages."""
