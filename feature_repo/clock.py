"""Time: microseconds since 1970, UTC, wherever it is reckoned with; datetimes where it is shown or read."""

from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
HOUR_MS = HOUR_US // 1000
DAY_S = DAY_US // SECOND_US
HOUR_S = HOUR_US // SECOND_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(us: int) -> datetime:
    """Microseconds since 1970 as an aware datetime; the inverse of `micros`.

    >>> instant(1_476_662_400_000_000).isoformat()
    '2016-10-17T00:00:00+00:00'
    """
    return EPOCH + timedelta(microseconds=int(us))


def micros(moment: datetime | str) -> int:
    """Microseconds since 1970 of a datetime or of ISO 8601 text, one without a time zone taken as UTC.

    Raises ValueError for text that is none, OverflowError for an instant that only another zone can write.

    >>> micros(datetime(2016, 10, 17)), micros("2016-10-17T02:00:00+02:00")
    (1476662400000000, 1476662400000000)
    """
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)
