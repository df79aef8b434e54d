"""Values in words: instants, shares, sizes, as every page shows them."""

from datetime import UTC, datetime
from urllib.parse import quote

from feature_repo.clock import instant


def when(us: int | datetime) -> str:
    """An instant for people, UTC, from microseconds or a datetime.

    >>> when(1_767_225_600_000_000)
    '2026-01-01 00:00'
    """
    moment = us if isinstance(us, datetime) else instant(us)
    return f"{moment:%Y-%m-%d %H:%M}"


def ago(us: int, now: datetime | None = None) -> str:
    """How long it is since, in the largest unit that has at least two.

    >>> ago(0, instant(5 * 60_000_000))
    '5 min ago'
    """
    seconds = max(((now or datetime.now(UTC)) - instant(us)).total_seconds(), 0)
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def share(value: float | None, digits: int = 2) -> str:
    """A rate in percent; a dash where there is none yet.

    >>> share(0.0234), share(None)
    ('2.34 %', '-')
    """
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def signed(value: float | None, digits: int = 1) -> str:
    """A change in percent, with its sign.

    >>> signed(0.0234), signed(-0.5), signed(None)
    ('+2.3 %', '-50.0 %', '-')
    """
    return "-" if value is None else f"{100 * value:+.{digits}f} %"


def count(value: float | None) -> str:
    """
    >>> count(1234567), count(None)
    ('1,234,567', '-')
    """
    return "-" if value is None else f"{value:,.0f}"


def money(value: float | None) -> str:
    """
    >>> money(1234.5), money(None)
    ('1,234.50', '-')
    """
    return "-" if value is None or value != value else f"{value:,.2f}"


def part(text: str) -> str:
    """A text as one part of a path, whatever stands in it.

    >>> part("a/b?c")
    'a%2Fb%3Fc'
    """
    return quote(text, safe="")


FILTERS = {f.__name__: f for f in (when, ago, share, signed, count, money, part)}
