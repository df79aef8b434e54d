"""Tried out beside what serves: rules and releases whose lists nobody is shown, two releases in one list."""
