"""A broken part is complained about once a minute: a log that floods is read by nobody."""

import logging
import re
import time

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

AGAIN_S = 60.0
CAUSES = {  # what Redis says -> a word that may be told to anybody
    "OOM": "out_of_memory",
    "READONLY": "read_only",
    "MISCONF": "disk_error",
    "NOAUTH": "password_refused",
    "WRONGPASS": "password_refused",
    "NOPERM": "password_refused",
    "LOADING": "starting",
    "NOREPLICAS": "too_few_replicas",
    "MASTERDOWN": "replica_without_master",
}
WORDS = re.compile(rf"\b({'|'.join(CAUSES)})\b")


def cause_of(error: BaseException) -> str:
    """Why Redis did not take a write, in one word without details: those are for the log.

    >>> cause_of(RuntimeError("OOM command not allowed when used memory > 'maxmemory'."))
    'out_of_memory'
    """
    # redis-py takes the code of an answer out of its text; a script has it in the middle of another error's
    if said := WORDS.search(f"{getattr(error, 'status_code', '')} {error}"):
        return CAUSES[said[0]]
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no_answer_in_time"
    return "no_connection" if isinstance(error, RedisConnectionError | OSError) else "refused"


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
