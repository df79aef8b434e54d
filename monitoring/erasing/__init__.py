"""The privacy page: what is held of a person, its erasure as a job of its own, the receipt and its check."""
