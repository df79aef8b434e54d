"""Tables for people: as wide as the terminal; 76 columns in a pipe, so that 80 hold an indented line, too."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

PIPE = 76


def console() -> Console:
    """Standard output; $COLUMNS says its width where it is set."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else PIPE)


def table(title: str | None, columns: Sequence[str]) -> Table:
    """A table without rows; a column whose name begins with ">" stands right, as numbers do.

    >>> [(column.header, column.justify) for column in table("Stock", ["item", ">pieces"]).columns]
    [('item', 'left'), ('pieces', 'right')]
    """
    made = Table(title=title, title_justify="left")
    for name in columns:
        made.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
    return made
