"""What serving refuses: a client's request (HTTP 4xx) and a bundle that must not be served.

EndcapError
├── RequestError       400 not JSON, 401 and 403 not allowed, 413 too large, 422 a wrong field, 429 too often
└── BundleError        a release that does not fit its manifest or this program
"""

from pathlib import Path
from typing import Any

import orjson

from feature_repo.errors import EndcapError, shorten


class RequestError(EndcapError):
    """A client's input is refused; `body()` is the answer's JSON.

    >>> RequestError("limit", 0, "a whole number from 1 to 100").body()
    b'{"error":{"field":"limit","value":"0","allowed":"a whole number from 1 to 100","next":"change limit"}}'
    """

    def __init__(
        self,
        field: str,
        value: object,
        allowed: str,
        *,
        status: int = 422,
        next_step: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.field, self.value, self.allowed, self.status = field, shorten(value), allowed, status
        self.retry_after_s = retry_after_s
        self.next_step = next_step or f"change {field}"
        super().__init__(f"{field}: {self.value} is not allowed; allowed: {allowed}. Next: {self.next_step}.")

    def body(self) -> bytes:
        told = {"field": self.field, "value": self.value, "allowed": self.allowed, "next": self.next_step}
        return orjson.dumps({"error": told})


class BundleError(EndcapError):
    """A bundle is refused; the release that was serving before goes on."""

    def __init__(self, file: Path | str, what: str, expected: Any, found: Any, next_step: str) -> None:
        self.file, self.what, self.expected, self.found = str(file), what, expected, found
        super().__init__(
            f"{file}: {what} is {shorten(found)}, expected {shorten(expected)}. Next: {next_step}."
        )
