"""A command in a process of its own: how long it took, and what it and its children held at their peak."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import psutil

LOOK_S = 0.02  # between two looks at the memory


@dataclass(frozen=True)
class Cost:
    """Wall clock and processor time; resident memory (10^9 bytes) at its highest; stdout. Children count."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    output: str


def measured(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Cost:
    """Run `command` to its end. Raises SystemExit with the end of its stderr when it fails."""
    start, before = time.perf_counter(), getrusage(RUSAGE_CHILDREN)
    child = subprocess.Popen(
        [str(word) for word in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peaks, ended = [0], threading.Event()
    watch = threading.Thread(target=_watch, args=(child.pid, peaks, ended))
    watch.start()
    output, complaints = child.communicate()
    seconds = time.perf_counter() - start
    ended.set()
    watch.join()
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {child.returncode}:\n{complaints[-2000:]}")
    after = getrusage(RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, peaks[0] / 1e9, output)


def _watch(pid: int, peaks: list[int], ended: threading.Event) -> None:
    while not ended.wait(LOOK_S):
        try:
            parent = psutil.Process(pid)
            family = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        held = 0
        for process in family:
            try:
                held += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peaks[0] = max(peaks[0], held)
