"""What both clients share: how a question looks, when it is asked again, and what an answer means."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import httpx

from endcap_client.errors import Refused, Unavailable
from endcap_client.messages import Event

TIMEOUT_S = 2.0
TRIES = 3
PAUSE_S = 0.1  # before the second try; doubled with each
LONGEST_PAUSE_S = 5.0
AGAIN = (429, 502, 503, 504)


class Call(NamedTuple):
    """A POST; `extra_s` is how much longer than usual its answer may take."""

    path: str
    body: dict[str, Any]
    extra_s: float = 0.0


def question(path: str, **fields: Any) -> Call:
    """None is left out: for the service it means absent, too."""
    return Call(path, {name: value for name, value in fields.items() if value is not None})


def telling(events: Iterable[Event], wait: bool) -> Call:
    """Every event has an id before the first try, so that a second one counts nothing twice."""
    named = [{"event_id": uuid.uuid4().hex, **event} for event in events]
    return Call("/v1/events?wait=1" if wait else "/v1/events", {"events": named}, 10.0 if wait else 0.0)


def pauses(tries: int) -> Iterator[float]:
    """Seconds to wait before each further try."""
    yield from (min(PAUSE_S * 2**at, LONGEST_PAUSE_S) for at in range(tries - 1))


def judged(answer: httpx.Response) -> Any:
    """The JSON of an answer; None where it is worth asking again.

    Raises Refused for any other refusal. 422 of events in which none was accepted is a receipt as well.
    """
    if answer.status_code in AGAIN:
        return None
    try:
        told = answer.json()
    except ValueError:
        told = {"error": answer.text[:200]}
    if answer.is_success or (answer.status_code == 422 and "accepted" in told):
        return told
    raise Refused(answer.status_code, told)


def patience(answer: httpx.Response | None, pause_s: float) -> float:
    """What the service asks for in Retry-After, else `pause_s`; never longer than LONGEST_PAUSE_S."""
    asked = (answer.headers if answer else {}).get("retry-after", "")
    return min(max(float(asked), pause_s), LONGEST_PAUSE_S) if asked.isdigit() else pause_s


def gave_up(call: Call, tries: int, answer: httpx.Response | None) -> Unavailable:
    why = f"HTTP {answer.status_code}: {answer.text[:200]}" if answer else "no answer in time"
    return Unavailable(f"{call.path}: {tries} tries, the last one: {why}")


def headers(key: str | None) -> Mapping[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}
