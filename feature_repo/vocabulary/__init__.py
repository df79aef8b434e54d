"""The words of other systems and what each means here, the same in an import and for live events."""
