"""What the admin plane shows: a page is a module that gathers and a template that shows."""
