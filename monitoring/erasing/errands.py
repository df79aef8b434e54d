"""Errands: `endcap person` and `endcap erase` as processes of their own, one at a time, asked after by name.

An erase goes through every file for tens of seconds; the console answers meanwhile. What a process says is
kept in memory, bounded; a receipt is a file of run/<shop>/receipts. An id goes to the process by a pipe:
arguments are read by everybody on the machine.
"""

import secrets
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from feature_repo.errors import BusyError
from feature_repo.params import root

KEPT, LIMIT_S, SAID = 50, 900.0, 20_000  # errands remembered; a process is ended; characters of what it said


@dataclass
class Errand:
    """`name`: the pseudonym that it is about; `code`: None while it runs."""

    kind: str  # person, erase or verify
    name: str
    began: float = field(default_factory=time.monotonic)
    code: int | None = None
    said: str = ""
    wrong: str = ""
    took_s: float = 0.0
    receipt: str = ""

    @property
    def seconds(self) -> float:
        return self.took_s if self.code is not None else time.monotonic() - self.began


class Errands:
    """The newest KEPT, by random names."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, Errand] = OrderedDict()
        self._turn = threading.Lock()

    def get(self, key: str) -> Errand | None:
        return self._held.get(key)

    def begin(self, errand: Errand, words: list[str], identity: str | None = None) -> str:
        """Start `endcap *words`; its name here. Raises BusyError while another one is at work."""
        with self._turn:
            if any(one.code is None for one in self._held.values()):
                step = "wait until it has ended, a minute at most, and send the form again"
                raise BusyError(f"privacy: another search or erase is at work; allowed: one. Next: {step}")
            key = secrets.token_urlsafe(12)
            self._held[key] = errand
            while len(self._held) > KEPT:
                self._held.popitem(last=False)
        threading.Thread(target=_run, args=(errand, words, identity), daemon=True).start()
        return key


def _run(errand: Errand, words: list[str], identity: str | None) -> None:
    command = [sys.executable, "-m", "pipelines", *words]
    try:
        done = subprocess.run(
            command, input=identity, capture_output=True, text=True, timeout=LIMIT_S, cwd=root(), check=False
        )
        errand.said, errand.wrong = done.stdout[-SAID:], done.stderr[-SAID:].strip()
        code = done.returncode
    except (OSError, subprocess.SubprocessError, UnicodeError) as error:
        errand.wrong, code = f"the process did not end well: {type(error).__name__}", -1
    errand.took_s = time.monotonic() - errand.began
    errand.code = code
