"""Other systems' events as ours: what each word, id and time of theirs means, payload by payload."""
