"""Lists that nobody is shown, made behind the answers' back: rules and releases that are tried out."""
