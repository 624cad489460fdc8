"""Moments: aware datetimes in, integer microseconds since 1970 in storage, RFC 3339 out."""

from datetime import UTC, date, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The moment in UTC; the inverse of `to_us`."""
    return _EPOCH + timedelta(microseconds=microseconds)


def day_of(moment: datetime, zone: tzinfo) -> date:
    """The calendar day on which a moment falls in `zone`."""
    return moment.astimezone(zone).date()


def rfc3339(moment: datetime) -> str:
    """ "2025-11-13T10:30:00Z", with microseconds only where there are some."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
