"""A detached local process: its pid file, its log, its readiness and its end.

A pid alone does not name a process, since pids are reused. A record also keeps the start time, and only a
process with both is ever signalled. Each process leads a session of its own, so that the workers it forks can
be found and ended with it, also when the leader was killed.
"""

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import psutil

from feature_repo.errors import EndcapError
from feature_repo.files import read_json, whole

LOG_LINES_SHOWN = 12
LOG_LOOK_S = 2.0
POLL_S = 0.1
START_TIME_TOLERANCE_S = 2.0  # the kernel's boot time, hence every start time, moves when the clock is set


class StackError(EndcapError):
    """A process did not start, or did not get ready."""


@dataclass(frozen=True)
class Program:
    """What to run. `ready` or `settled` is waited for; `port` must be free before (None: it has none)."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    port: int | None = None
    port_setting: str = ""  # how to choose another port, for the message
    env: Mapping[str, str] = field(default_factory=dict)
    settled: Callable[[], bool] = lambda: False  # true: it stands, and time alone will not make it ready


@dataclass(frozen=True)
class Record:
    """A started process, as its pid file run/<shop>/<name>.pid keeps it; `started` in seconds since 1970."""

    name: str
    pid: int
    started: float
    port: int | None

    def members(self) -> list[psutil.Process]:
        """The live processes of this session and their leader; none when the pid now means another."""
        try:
            leader = psutil.Process(self.pid)
            if abs(leader.create_time() - self.started) > START_TIME_TOLERANCE_S:
                return []
        except psutil.NoSuchProcess:
            pass  # the leader is gone, its workers may not be
        return [p for p in psutil.process_iter() if self._owns(p)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return (
                os.getsid(process.pid) == self.pid
                and process.create_time() >= self.started - START_TIME_TOLERANCE_S
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            return False

    def is_running(self) -> bool:
        """True while the leader itself lives."""
        return any(p.pid == self.pid for p in self.members())


def pid_file(folder: Path, name: str) -> Path:
    """`folder` is run/<shop>."""
    return folder / f"{name}.pid"


def log_file(folder: Path, name: str) -> Path:
    """Where the process writes both its outputs, appended over restarts."""
    return folder / "logs" / f"{name}.log"


def recorded(folder: Path) -> list[Record]:
    """Every process that was started from this folder and not stopped, running or not."""
    keys, step = [field.name for field in fields(Record)], "end that process by hand and delete the file"
    found = [read_json(path, step, *keys) for path in sorted(folder.glob("*.pid"))]
    return [Record(**{key: record[key] for key in keys}) for record in found]


def find(folder: Path, name: str) -> Record | None:
    """The running process of that name, None if there is none."""
    running = (record for record in recorded(folder) if record.name == name and record.is_running())
    return next(running, None)


def start(programs: Sequence[Program], folder: Path, timeout_s: float) -> list[Record]:
    """Run all of `programs` detached at once and wait until each is ready. A running one is left as it is.

    Raises StackError when a port is taken, when one ends before it is ready (with the end of its log), or
    after `timeout_s` seconds; a process that did not get ready is ended.
    """
    begun = [(program, *_launch(program, folder, timeout_s)) for program in programs]
    deadline = time.monotonic() + timeout_s
    for program, record, child in begun:
        while child is not None and not program.ready() and not program.settled():
            if child.poll() is not None:
                problem = f"ended with status {child.returncode}"
            elif time.monotonic() > deadline:
                problem = f"was not ready after {timeout_s:.0f} s"
            else:
                time.sleep(POLL_S)
                continue
            stop(record, folder, timeout_s)
            raise StackError(f"{program.name} {problem}; {_tail(log_file(folder, program.name))}")
    return [record for _, record, _ in begun]


def _launch(
    program: Program, folder: Path, timeout_s: float
) -> tuple[Record, subprocess.Popen[bytes] | None]:
    """Its record, and the child where it did not run already."""
    if running := find(folder, program.name):
        return running, None
    stale = [r for r in recorded(folder) if r.name == program.name]
    if stale:
        stop(stale[0], folder, timeout_s)  # workers of a killed leader would hold its port
    wait_until_free(program, timeout_s if stale else 0)  # or they are ending by themselves
    log = log_file(folder, program.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            program.command,
            env={**os.environ, **program.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record = Record(program.name, child.pid, psutil.Process(child.pid).create_time(), program.port)
    with whole(pid_file(folder, program.name)) as draft:
        draft.write_text(json.dumps(asdict(record)))
    return record, child


def stop(record: Record, folder: Path, timeout_s: float) -> bool:
    """TERM, then KILL after `timeout_s`; forgets the pid file. False when nothing of it was running."""
    running = bool(record.members())
    for leads, number in ((True, signal.SIGTERM), (False, signal.SIGTERM), (None, signal.SIGKILL)):
        # The leader first, which ends its own workers in order; then the workers; then whatever is left.
        left = [p for p in record.members() if leads in (None, p.pid == record.pid)]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)  # psutil compares the start time once more
        psutil.wait_procs(left, timeout=timeout_s)
    pid_file(folder, record.name).unlink(missing_ok=True)
    return running


def wait_until_free(program: Program, timeout_s: float) -> None:
    """Raises StackError as require_free where the port is not free after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return require_free(program)
        except StackError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def require_free(program: Program) -> None:
    """Raises StackError, with the setting that changes it, when somebody listens on the program's port."""
    if program.port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", program.port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise StackError(
                f"port {program.port} for {program.name} is not free ({error.strerror}); "
                f"end what listens there, or set {program.port_setting}"
            ) from None


def keep_log_bounded(most: int) -> None:
    """Where this process writes to a log file, cut it beyond `most` bytes, for as long as it runs.

    The file is cut, not moved: its workers write to it, too, and everybody appends.
    """
    if stat.S_ISREG(os.fstat(1).st_mode):
        log = Path("/proc/self/fd/1").readlink()
        threading.Thread(target=_cut_again_and_again, args=(log, most), name="log", daemon=True).start()


def cut(log: Path, most: int) -> None:
    """Beyond `most` bytes begin `log` anew; its newest `most` bytes are then in <log>.1."""
    with suppress(OSError):  # a disk that is full is told elsewhere; the next look tries again
        if log.stat().st_size <= most:
            return
        with log.open("r+b") as old, log.with_name(f"{log.name}.1").open("wb") as kept:
            old.seek(-most, os.SEEK_END)
            kept.write(old.read(most))
            old.truncate(0)


def _cut_again_and_again(log: Path, most: int) -> None:
    while True:
        time.sleep(LOG_LOOK_S)
        cut(log, most)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    return f"the end of {os.path.relpath(log)}:\n  " + "\n  ".join(lines or ["(empty)"])
