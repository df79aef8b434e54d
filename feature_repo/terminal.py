"""Who speaks to the reader: we do. What libraries print goes to a log file whose name is told.

Libraries warn at import, draw bars of their own and talk at exit, through `sys.stderr` and beneath it. So
`libraries_to` gives them file descriptor 2 and `sys.stderr`, and keeps the reader's one for us. Tables are as
wide as the terminal; 76 columns in a pipe, so that 80 hold an indented line, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:  # `endcap --help` does without
    from rich.console import Console
    from rich.table import Table
    from tqdm import tqdm

PIPE = 76
LOG_BYTES = 1_000_000  # a log longer than this begins anew
_own: TextIO | None = None


def reader() -> TextIO:
    """Where our own complaints and progress bars go: the stderr with which the process was started."""
    return _own or sys.stderr


def libraries_to(log: Path, title: str) -> None:
    """From now on, what libraries write to stderr is appended to `log`, under a line with time and `title`.

    It stays so to the very end of the process; once only. Raises OSError when the log cannot be written.
    """
    global _own
    log.parent.mkdir(parents=True, exist_ok=True)
    anew = os.O_TRUNC if log.exists() and log.stat().st_size > LOG_BYTES else 0
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | anew, 0o644)
    os.write(output, f"== {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {title}\n".encode())
    sys.stderr.flush()
    if _own is None:
        _own = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(output, 2)
    os.close(output)


def progress(steps: Iterable[Any] | None = None, **looks: Any) -> tqdm:
    """A tqdm bar for the reader: on a terminal only, so that a log holds no half-drawn lines."""
    from tqdm import tqdm

    return tqdm(steps, **({"file": reader(), "disable": None} | looks))


def console() -> Console:
    """Standard output; $COLUMNS says its width where it is set."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else PIPE)


def table(title: str | None, columns: Sequence[str]) -> Table:
    """A table without rows; a column whose name begins with ">" stands right, as numbers do.

    >>> [(column.header, column.justify) for column in table("Stock", ["item", ">pieces"]).columns]
    [('item', 'left'), ('pieces', 'right')]
    """
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for name in columns:
        made.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
    return made
