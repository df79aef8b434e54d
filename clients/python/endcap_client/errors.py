"""What can go wrong.

EndcapClientError
├── Refused        the service says what is wrong with the question (HTTP 4xx); asking again does not help
└── Unavailable    no answer in time, however often it was tried: show what the page has of its own
"""

from typing import Any


class EndcapClientError(Exception):
    """Root of all that this client raises on purpose."""


class Refused(EndcapClientError):
    """`status` and `told`, the JSON of the answer: the field, its value, what is allowed."""

    def __init__(self, status: int, told: dict[str, Any]) -> None:
        self.status, self.told = status, told
        super().__init__(f"HTTP {status}: {told.get('error', told)}")


class Unavailable(EndcapClientError):
    """The last reason is the `__cause__`, or stands in the message."""
