"""The merchandiser's rules: the document, masks and factors made of it, its versions, what a worker holds."""
