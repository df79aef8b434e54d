"""A worker outlives nobody: who watches over it was killed, so the worker drains and ends.

Workers lead sessions of their own, so that nothing else ties them to a supervisor that was killed: they would
hold its port, and nobody would start them again, change them or end them.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

SUPERVISOR = "ENDCAP_SUPERVISOR"  # its process id, for those that it starts
PR_SET_PDEATHSIG = 1  # of prctl, which only Linux has


def hold() -> None:
    """From now on this process gets TERM when its supervisor ends; at once where that has ended already."""
    supervisor = os.environ.get(SUPERVISOR)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):
        os.kill(os.getpid(), signal.SIGTERM)
