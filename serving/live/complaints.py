"""A broken part is complained about once a minute: a log that floods is read by nobody."""

import logging
import time

AGAIN_S = 60.0


class Complaints:
    """Logs a failure with its traceback unless the same kind was logged within the last AGAIN_S."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._logged: dict[str, float] = {}

    def __call__(self, part: str, error: Exception) -> None:
        """`part` names what failed; kinds differ by part and by type of error."""
        kind = f"{part}: {type(error).__name__}"
        if time.monotonic() - self._logged.get(kind, -AGAIN_S) >= AGAIN_S:
            self._logged[kind] = time.monotonic()
            self._log.error("%s failed", part, exc_info=error)
