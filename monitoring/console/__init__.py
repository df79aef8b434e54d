"""The pages of the admin plane."""
