"""Times of RFC 3339 in the precision of the ledger."""

import re

_DAY, _MINUTE, _ZONE = "[0-9]{4}-[0-9]{2}-[0-9]{2}", "[0-9]{2}:[0-9]{2}", "[Zz]|[+-][0-9]{2}:?[0-9]{2}"
_TIME = re.compile(rf"({_DAY})[Tt ]({_MINUTE}):([0-9]{{2}})(\.[0-9]+)?({_ZONE})?")


def cut_time(text: str) -> str:
    """A time without what is finer than a microsecond; a leap second is the last microsecond of its minute.

    A time is never rounded up, so that it stays on its day. Any other text is returned as it is.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        return text
    day, minute, second, fraction, zone = match.groups(default="")
    if second == "60":
        second, fraction = "59", ".999999"
    return f"{day}T{minute}:{second}{fraction[:7]}{zone.upper()}"
