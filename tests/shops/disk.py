"""A disk that takes nothing, for this process: full, or not ours to write to."""

from __future__ import annotations

import codecs
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk() -> Iterator[None]:
    """The kernel refuses every byte that a file would grow by."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root reads and writes everything: for as long as this lasts we are nobody."""
    if os.geteuid() == 0:
        for codec in ("ascii", "latin-1", "utf-16", "idna"):  # nobody may not read root's own interpreter
            codecs.lookup(codec)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield
