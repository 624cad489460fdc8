"""Query parameters: each with its parser, its default and its JSON Schema for the API's description."""

import base64
import binascii
import calendar
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from service.core.errors import ParameterError

_YEARS = range(1970, 3000)
_MONTH_PATTERN = r"(19[7-9]\d|2\d{3})-(0[1-9]|1[0-2])"  # of a year in `_YEARS`
_DAY_PATTERN = rf"{_MONTH_PATTERN}-(0[1-9]|[12]\d|3[01])"
_TIME_PATTERN = r"[Tt]\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:?\d{2})"
_MAX_RANGE_DAYS = 3_700  # a range of days longer than ten years is a mistake


class Parameter(Struct, frozen=True, kw_only=True):
    """One query parameter. `default` gives its value by today's date; None means that it was left out.

    `schema` refuses what `parse` refuses, as far as a JSON Schema can. A `required` one has no default.
    """

    name: str
    parse: Callable[[str], Any]
    default: Callable[[date], Any]
    schema: dict[str, Any]
    description: str
    required: bool = False


def parse_all(parameters: tuple[Parameter, ...], query: dict[str, str], today: date) -> dict[str, Any]:
    """Every parameter's value by its name. Raises ParameterError that names an unusable one."""
    values = {}
    for parameter in parameters:
        text = query.get(parameter.name)
        try:
            values[parameter.name] = parameter.default(today) if text is None else parameter.parse(text)
        except (ValueError, OverflowError):
            raise ParameterError(f"{parameter.name}: {parameter.description}") from None
    return values


def integer(name: str, default: Callable[[date], int], low: int, high: int, description: str) -> Parameter:
    """A whole number from `low` to `high`."""

    def parse(text: str) -> int:
        value = int(text) if text.isascii() and text.lstrip("-").isdigit() else low - 1
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return Parameter(
        name=name,
        parse=parse,
        default=default,
        schema={"type": "integer", "minimum": low, "maximum": high},
        description=f"{description}; a whole number from {low} to {high}",
    )


def choice(name: str, default: str | None, options: tuple[str, ...], description: str) -> Parameter:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in options:
            raise ValueError(text)
        return text

    return Parameter(
        name=name,
        parse=parse,
        default=lambda _: default,
        schema={"type": "string", "enum": list(options)},
        description=f"{description}; one of {', '.join(options)}",
    )


def choices(name: str, default: str, options: tuple[str, ...], description: str) -> Parameter:
    """Some of a few words, with commas between them."""

    def parse(text: str) -> list[str]:
        words = set(text.split(","))
        if not words <= set(options):
            raise ValueError(text)
        return sorted(words, key=options.index)

    return Parameter(
        name=name,
        parse=parse,
        default=lambda _: parse(default),
        schema={"type": "array", "items": {"type": "string", "enum": list(options)}, "minItems": 1},
        description=f"{description}; some of {', '.join(options)}, with commas between",
    )


def flag(name: str, *, default: bool, description: str) -> Parameter:
    """True or false."""
    words = {"true": True, "false": False}

    def parse(text: str) -> bool:
        if text not in words:
            raise ValueError(text)
        return words[text]

    return Parameter(
        name=name,
        parse=parse,
        default=lambda _: default,
        schema={"type": "boolean"},
        description=f"{description}; true or false",
    )


def _require_printable(value: str) -> str:
    """The text itself, if it is printable as every id and status is (service.core.limits).

    Raises ValueError if not: PostgreSQL takes no NUL.
    """
    if not value.isprintable():
        raise ValueError(value)
    return value


def text(name: str, description: str) -> Parameter:
    """Printable text; None by default."""
    return Parameter(
        name=name,
        parse=_require_printable,
        default=lambda _: None,
        schema={"type": "string", "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"},
        description=f"{description}; printable text",
    )


def _parse_date(value: str) -> date:
    """The date of "2025-11-13"; raises ValueError, also for years too near the calendar's ends."""
    parsed = date.fromisoformat(value)
    if parsed.year not in _YEARS or parsed.isoformat() != value:
        raise ValueError(value)
    return parsed


def day(name: str, default: Callable[[date], date], description: str) -> Parameter:
    """A date, "2025-11-13"."""
    return Parameter(
        name=name,
        parse=_parse_date,
        default=default,
        schema={"type": "string", "format": "date", "pattern": f"^{_DAY_PATTERN}$"},
        description=f"{description}; a date such as 2025-11-13",
    )


def _currency_code(value: str) -> str:
    """An ISO 4217 code in lower case; raises ValueError."""
    if len(value) != 3 or not (value.isascii() and value.isalpha()):
        raise ValueError(value)
    return value.lower()


# What every read can be asked for: the parts of service.books.view.Scope.
SCOPE = (
    Parameter(
        name="currency",
        parse=_currency_code,
        default=lambda _: None,
        schema={"type": "string", "pattern": "^[a-zA-Z]{3}$"},
        description="an ISO 4217 code; by default the reporting currency",
    ),
    text("account", "one processor account; by default all"),
    day("today", lambda today: today, "the day that splits past from coming, by default today"),
)


def _parse_known_at(value: str) -> date | datetime:
    """The date, or the moment in RFC 3339; raises ValueError."""
    if len(value) == 10:
        return _parse_date(value)
    moment = datetime.fromisoformat(value.upper())
    if moment.tzinfo is None or value[10] not in "Tt" or moment.year not in _YEARS:
        raise ValueError(value)
    return moment


# Parameters for the books as they were known earlier: by the events that had been recorded until then.
LOOK_BACK = (
    replace(
        integer("position", lambda _: 0, 0, 2**62, "only what the ledger held up to this position"),
        default=lambda _: None,
    ),
    Parameter(
        name="known_at",
        parse=_parse_known_at,
        default=lambda _: None,
        schema={"type": "string", "pattern": f"^{_DAY_PATTERN}({_TIME_PATTERN})?$"},
        description="only what had been recorded by then, as 2025-11-13T10:30:00Z, or by the end of a day, "
        "as 2025-11-13; `today` is that day by default",
    ),
)


def month_start(name: str, default: Callable[[date], date], description: str) -> Parameter:
    """The first day of a month "2025-01", or a date as it is."""
    return Parameter(
        name=name,
        parse=lambda value: _parse_date(f"{value}-01" if len(value) == 7 else value),
        default=default,
        schema={"type": "string", "pattern": f"^({_MONTH_PATTERN}|{_DAY_PATTERN})$"},
        description=f"{description}; a month such as 2025-01, or a date",
    )


def month_end(name: str, default: Callable[[date], date], description: str) -> Parameter:
    """The last day of a month "2025-12", or a date as it is."""

    def parse(value: str) -> date:
        return last_of_month(_parse_date(f"{value}-01")) if len(value) == 7 else _parse_date(value)

    return Parameter(
        name=name,
        parse=parse,
        default=default,
        schema={"type": "string", "pattern": f"^({_MONTH_PATTERN}|{_DAY_PATTERN})$"},
        description=f"{description}; a month such as 2025-12, or a date",
    )


def cursor() -> Parameter:
    """The start of a page: the `next_cursor` of the page before."""

    def parse(value: str) -> str:
        try:
            return _require_printable(
                base64.b64decode(value.encode(), altchars=b"-_", validate=True).decode()
            )
        except (binascii.Error, UnicodeError) as error:
            raise ValueError(value) from error

    return Parameter(
        name="cursor",
        parse=parse,
        default=lambda _: None,
        schema={"type": "string", "pattern": "^[A-Za-z0-9_-]*={0,2}$"},
        description="the `next_cursor` of the page before",
    )


def to_cursor(key: str | None) -> str | None:
    """A key as a cursor."""
    return None if key is None else base64.urlsafe_b64encode(key.encode()).decode()


def last_of_month(any_day: date) -> date:
    """The last day of the month that holds a day."""
    return any_day.replace(day=calendar.monthrange(any_day.year, any_day.month)[1])


def months_back(today: date, count: int) -> date:
    """The first day of the month that is `count` months before today's."""
    month = today.year * 12 + today.month - 1 - count
    return date(month // 12, month % 12 + 1, 1)


def check_range(first: date, last: date) -> None:
    """Raise ParameterError unless the days are in order and at most ten years apart."""
    if first > last:
        raise ParameterError("from: a day that is not after `to`")
    if last - first > timedelta(days=_MAX_RANGE_DAYS):
        raise ParameterError("to: a day at most ten years after `from`")
