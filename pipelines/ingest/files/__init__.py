"""Files of an export as they lie on disk: found, unpacked, decoded, split into lines and cells."""
