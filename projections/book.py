"""What a book is: a name, a version, and pure functions from histories to rows to totals.

A stage reads one history at a time: the events of one subject (a subscription, an invoice), or the
rows of an earlier stage that feed the same key (a customer's contracts). It contributes rows, and
rows add up to totals. A book is therefore a function of the set of events alone: neither their
order nor their number of deliveries can matter, and integers add up in any order.
"""

from collections.abc import Callable, Sequence
from datetime import tzinfo
from fractions import Fraction
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from msgspec import Struct, json

from service.core.events import Event


class Rules(Struct, frozen=True, kw_only=True):
    """The settings that figures depend on. Other rules are another version of the same book."""

    reporting_tz: str = "UTC"
    weeks_per_month: Fraction = Fraction(433, 100)

    @property
    def zone(self) -> tzinfo:
        """The zone in which days begin."""
        return ZoneInfo(self.reporting_tz)


class Row(Struct, frozen=True, kw_only=True):
    """One line of a book: text, integers, booleans. Dates are text, "2025-11-13".

    `feeds` names the key under which a later stage reads this row; empty where none does. `causes`
    is the JSON list of the events that the row's values come from.
    """

    table: ClassVar[str]
    indexes: ClassVar[tuple[tuple[str, ...], ...]] = ()  # what reads look rows up by

    feeds: str = ""
    causes: str = "[]"


# (history in canonical order, or rows in no order; the rules) -> rows, no two of them equal.
Contribute = Callable[[Sequence[Any], Rules], list[Row]]


class Stage(Struct, frozen=True, kw_only=True):
    """One step of a book. `reads` is a kind of subject ("invoice"), or row types of earlier stages."""

    reads: str | tuple[type[Row], ...]
    contribute: Contribute
    rows: tuple[type[Row], ...]


class Total(Struct, frozen=True, kw_only=True):
    """Sums over rows: `measure(row)` gives the integers for `sums`, grouped by the columns in `by`."""

    table: str
    of: type[Row]
    by: tuple[str, ...]
    sums: tuple[str, ...]
    measure: Callable[[Any], tuple[int, ...]]


class Book(Struct, frozen=True, kw_only=True):
    """A projection. Raise `version` whenever the same events would give other rows."""

    name: str
    version: int
    stages: tuple[Stage, ...]
    totals: tuple[Total, ...]


def causes(*events: Event) -> str:
    """The `causes` column for rows that come from these events."""
    return json.encode(sorted({event.cause for event in events})).decode()


def merge_causes(columns: Sequence[str]) -> str:
    """The `causes` column for a row made of rows."""
    return json.encode(sorted({cause for column in columns for cause in json.decode(column)})).decode()
