"""What is sent and what comes back, as docs/api.md has it."""

from typing import NotRequired, Required, TypedDict


class Surface(TypedDict, total=False):
    """One list of a page."""

    surface: Required[str]
    items: list[str]
    limit: int


class Event(TypedDict, total=False):
    """What a shopper did; without `event_id` the client gives it one, so that it can be sent again."""

    type: Required[str]
    session_id: Required[str]
    event_id: str
    event_ts: int | str
    user_id: str
    item_id: str
    surface: str
    request_id: str
    slot: int
    list_name: str
    position: int
    price: float
    quantity: int
    query: str
    device: str
    country: str
    channel: str
    consent: bool


class Slot(TypedDict):
    """A place of a list; the last ones only where `fields` asked for them."""

    item_id: str
    slot: int
    score: float
    source: str
    title: NotRequired[str | None]
    price: NotRequired[float | None]
    brand: NotRequired[str | None]
    category_path: NotRequired[str | None]
    image_path: NotRequired[str | None]
    url: NotRequired[str | None]


class Evaluation(TypedDict):
    """What an experiment gives this shopper, in OpenFeature's names; a value where the variant has one."""

    flag_key: str
    variant: str
    reason: str
    value: NotRequired[object]


class List(TypedDict):
    """The answer for a surface."""

    request_id: str
    surface: str
    items: list[Slot]
    arm: str
    bundle: str
    served_from: str
    degraded: str | None
    feature_age_ms: int | None
    took_ms: float
    warnings: NotRequired[list[str]]
    flags: NotRequired[list[Evaluation]]


class Rejected(TypedDict):
    """An event that was not accepted, by its place in the batch."""

    index: int
    event_id: str | None
    error: str


class Receipt(TypedDict):
    """What became of a batch; `applied` only where it was waited for, `uncounted` by reason where any was."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]
    applied: NotRequired[bool]
    uncounted: NotRequired[dict[str, int]]
